/*
 * Checkpoints and the trim of the log.
 *
 * Theory of operation. A writer applies its turn when it is acknowledged, which may be before its reader
 * brings it. So what it has of a resource is: the log up to where its reader is, and outcomes up to a
 * number, some of them further on. A checkpoint says exactly that: a position, the number of the last outcome
 * in it, the state, and the ends. Each resource counts its own outcomes, so the number is that of the effects
 * in the state. A reader that starts from it reads on behind the position and skips outcomes up to the number.
 *
 * The newest checkpoint of a resource replaces the one before, under the writer's gate. The trim removes
 * what lies at or below the oldest of the resources' checkpoints, gates excepted.
 *
 * Checkpoints travel too. One whose answer was lost may arrive after a newer one, and would replace it: the
 * trim has gone on from the newer one by then. So a writer that is in doubt about a checkpoint stores a gate
 * of its own and reads it before the next one. The late one names the older gate and is refused.
 *
 * What must hold whenever a checkpoint is stored or the log trimmed: a reader that starts now has each
 * effect once (G3), all of them (G6), and every end (G4). At rest the writer still works (G1).
 * docs/model.md says what each mutation (a -D flag) breaks.
 */

#ifndef RESOURCES
#define RESOURCES 1 /* at most 2 */
#endif
#ifndef TURNS
#define TURNS 2
#endif
#ifndef ENDS
#define ENDS 1
#endif
#ifndef CHECKPOINTS
#define CHECKPOINTS 2
#endif
#ifndef LOSSES
#define LOSSES 1 /* the answer to a checkpoint, or the patience to wait for it */
#endif

#define LOG_SIZE (2 + TURNS + 2 * ENDS + LOSSES)
#define SLOTS 2 /* checkpoints on their way */

#ifdef ONLY
#define CHECK(g, x) if :: ONLY != g || (x) :: else -> assert(x) fi
#else
#define CHECK(g, x) assert(x)
#endif
#define G1(x) CHECK(1, x)
#define G3(x) CHECK(3, x)
#define G4(x) CHECK(4, x)
#define G6(x) CHECK(6, x)

#ifdef TELL
#define SAY1(text, a) printf(text, a)
#define SAY2(text, a, b) printf(text, a, b)
#define SAY3(text, a, b, c) printf(text, a, b, c)
#else
#define SAY1(text, a) skip
#define SAY2(text, a, b) skip
#define SAY3(text, a, b, c) skip
#endif

/* --- the log --------------------------------------------------------------------------------- */
mtype = { GATE, TURN, END };
mtype = { NONE, STORED, REFUSED };

typedef Entry { mtype kind; byte resource; byte number };
Entry log[LOG_SIZE];
byte log_end;
byte trimmed; /* all up to here is gone, gates excepted */
byte gate;    /* the writer's newest; 0: the server has none */

typedef Checkpoint { byte read; byte effects; byte ended };
Checkpoint saved[RESOURCES]; /* all zero at first: a reader starts at the beginning */

typedef Copy { bit sent; byte gate; byte resource; byte read; byte effects; byte ended };
Copy copy[SLOTS];

/* --- the writer ------------------------------------------------------------------------------ */
byte read;                 /* how far its reader is */
byte gate_read;
byte effects[RESOURCES];   /* the state: how many turns took effect, which is the number of the last */
byte ended[RESOURCES];     /* ends, a bit each */
byte hand;                 /* the turn it waits for: its resource + 1 */
mtype answer = NONE;
bit asked;                 /* it waits for the answer to a checkpoint */
byte doubt;                /* the gate under which a checkpoint may still be on its way */
bit to_gate;               /* it is about to store its own gate */

/* --- budgets, ghosts, scratch ---------------------------------------------------------------- */
byte turns = TURNS;
byte ends = ENDS;
byte checkpoints = CHECKPOINTS;
byte losses = LOSSES;
byte all_effects[RESOURCES];
byte all_ended[RESOURCES];
byte x;
byte y;
byte e;
byte f;

inline append(what, res, n) {
    log_end++;
    log[log_end].kind = what;
    log[log_end].resource = res;
    log[log_end].number = n
}

inline store_gate() { append(GATE, 0, 0); gate = log_end }

#ifdef CHECKPOINT_WITHOUT_NUMBER /* it says only: up to where my reader is */
#define IS_NEW true
#else
#define IS_NEW log[x].number > saved[y].effects
#endif

/* A reader that starts now: what it makes of the checkpoints and what is left of the log. */
inline look_as_a_new_reader() {
    y = 0;
    do
    :: y < RESOURCES ->
        e = saved[y].effects;
        f = saved[y].ended;
        G6(saved[y].read >= trimmed);
        x = (saved[y].read > trimmed -> saved[y].read : trimmed) + 1;
        do
        :: x <= log_end ->
            if
            :: log[x].kind == TURN && log[x].resource == y && IS_NEW -> e++
            :: log[x].kind == END && log[x].resource == y -> f = f | log[x].number
            :: else
            fi;
            x++
        :: else -> break
        od;
        G3(e <= all_effects[y]);
        G6(e >= all_effects[y]);
        G4(f == all_ended[y]);
        y++
    :: else -> break
    od;
    x = 0; y = 0; e = 0; f = 0
}

/* --- callers that give up: an end, then a gate --------------------------------------------------- */
proctype Caller() {
    byte pending, res;
end:
    do
    :: atomic { ends > 0 && pending == 0 ->
        ends--;
        res = 0;
#if RESOURCES > 1
        if
        :: true
        :: res = 1
        fi;
#endif
        append(END, res, 1 << ends);
        all_ended[res] = all_ended[res] | (1 << ends);
        SAY2("caller: an end at %d, of resource %d\n", log_end, res + 1);
        pending = 1 }
    :: atomic { pending -> pending = 0; res = 0; store_gate(); SAY1("caller: a gate at %d\n", log_end) }
    od
}

/* --- the trim ---------------------------------------------------------------------------------- */
#if RESOURCES == 1
#define OLDEST saved[0].read
#define NEWEST saved[0].read
#else
#define OLDEST (saved[0].read < saved[1].read -> saved[0].read : saved[1].read)
#define NEWEST (saved[0].read > saved[1].read -> saved[0].read : saved[1].read)
#endif
#ifdef TRIM_BY_NEWEST
#define TRIM_TO NEWEST
#else
#define TRIM_TO OLDEST
#endif

proctype Trim() {
    byte to;
end:
    do
    :: atomic { to == 0 && TRIM_TO > trimmed -> to = TRIM_TO }
    :: atomic { to != 0 -> /* any time later */
        if
        :: to > trimmed -> trimmed = to; SAY1("trim: up to %d\n", to)
        :: else
        fi;
        to = 0;
#ifdef TRIM_TAKES_GATES
        if
        :: gate <= trimmed -> gate = 0
        :: else
        fi;
#endif
        look_as_a_new_reader() }
    od
}

/* --- checkpoints on their way -------------------------------------------------------------------- */
proctype Network(byte c) {
end:
    do
    :: atomic { copy[c].sent ->
        if
        :: copy[c].gate == gate ->
            saved[copy[c].resource].read = copy[c].read;
            saved[copy[c].resource].effects = copy[c].effects;
            saved[copy[c].resource].ended = copy[c].ended;
            SAY3("server: stores a checkpoint of resource %d: up to %d, and outcomes up to %d\n", copy[c].resource + 1, copy[c].read, copy[c].effects);
            look_as_a_new_reader()
        :: else -> SAY1("server: refuses a checkpoint under gate %d\n", copy[c].gate)
        fi;
        copy[c].sent = 0; copy[c].gate = 0; copy[c].resource = 0; copy[c].read = 0; copy[c].effects = 0; copy[c].ended = 0 }
    od
}

/* --- the writer's steps -------------------------------------------------------------------------- */
#ifdef CHECKPOINT_AT_ACK /* it says: up to my last turn */
#define POSITION last_turn
byte last_turn;
#else
#define POSITION read
#endif
#ifdef CHECKPOINT_WITHOUT_ENDS
#define ENDED(res) 0
#else
#define ENDED(res) ended[res]
#endif
#ifdef NO_GATE_IN_DOUBT
#define MAY_CHECKPOINT true
#else
#define MAY_CHECKPOINT (doubt == 0 || gate_read > doubt)
#endif

inline apply() { effects[hand - 1]++ }

inline read_one() {
    read++;
    if
    :: log[read].kind == GATE -> gate_read = read
    :: log[read].kind == END -> ended[log[read].resource] = ended[log[read].resource] | log[read].number
    :: log[read].kind == TURN ->
        if
        :: log[read].number > effects[log[read].resource] -> answer = NONE; apply(); hand = 0 /* quicker than the answer */
        :: else
        fi
    fi
}

inline send_to(c, res) {
    copy[c].sent = 1; copy[c].gate = gate_read; copy[c].resource = res; copy[c].read = POSITION;
    copy[c].effects = effects[res]; copy[c].ended = ENDED(res)
}

inline send_checkpoint(res) {
    SAY2("writer: a checkpoint of resource %d under gate %d\n", res + 1, gate_read);
    if
    :: !copy[0].sent -> send_to(0, res)
    :: else -> send_to(1, res)
    fi
}


proctype Writer() {
end:
    do
    :: atomic { read < log_end -> read_one() }
    :: atomic { hand == 0 && turns > 0 ->
        if
        :: hand = 1
#if RESOURCES > 1
        :: hand = 2
#endif
        fi;
        if
        :: gate_read == gate ->
            turns--;
            append(TURN, hand - 1, effects[hand - 1] + 1);
            all_effects[hand - 1]++;
            SAY3("server: stores outcome %d of resource %d at %d\n", effects[hand - 1] + 1, hand, log_end);
            answer = STORED
        :: else -> answer = REFUSED; SAY1("server: refuses a turn under gate %d\n", gate_read)
        fi }
    :: atomic { hand != 0 && answer == STORED ->
        apply();
#ifdef CHECKPOINT_AT_ACK
        x = log_end;
        do
        :: log[x].kind != TURN -> x--
        :: else -> break
        od;
        last_turn = x; x = 0;
#endif
        hand = 0; answer = NONE }
    :: atomic { hand != 0 && answer == REFUSED && gate_read >= gate && gate != 0 -> hand = 0; answer = NONE }
    :: atomic { checkpoints > 0 && !asked && MAY_CHECKPOINT && !(copy[0].sent && copy[1].sent) ->
        checkpoints--;
        doubt = 0;
        if
        :: send_checkpoint(0)
#if RESOURCES > 1
        :: send_checkpoint(1)
#endif
        fi;
        asked = 1 }
    :: atomic { asked && !copy[0].sent && !copy[1].sent -> asked = 0 } /* answered */
    :: atomic { asked && losses > 0 -> /* no answer, it waits no more */
        losses--; asked = 0; doubt = gate_read;
        SAY1("writer: in doubt about a checkpoint under gate %d\n", gate_read);
#ifndef NO_GATE_IN_DOUBT
        to_gate = 1
#endif
        }
    :: atomic { to_gate -> to_gate = 0; store_gate(); SAY1("writer: a gate of its own at %d\n", log_end) }
    od
}

proctype AtRest() {
    timeout ->
    atomic {
#ifdef PROBE
        assert(false);
#endif
        G1(turns == 0 && hand == 0);
        look_as_a_new_reader()
    }
}

init {
    atomic {
        store_gate();
        read = 1; gate_read = 1;
        run Caller(); run Trim(); run Network(0); run Network(1); run Writer(); run AtRest()
    }
}
