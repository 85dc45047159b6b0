/*
 * AegisIPC's protocol: one log, one writer per instance, one entry per turn.
 *
 * Theory of operation. The log is a sequence of entries:
 *
 *   gate   of a writer. Anybody stores one, without a condition; it replaces the writer's one before.
 *   own    numbered and create-only: these resources now belong to that writer.
 *   turn   outcomes of one writer, numbered without gaps and create-only. The server stores it only
 *          while its writer's gate is the one named in it.
 *   end    a caller gave up on a request.
 *   claim  a process that connects says that it writes under this writer's name (-DCLAIMS, for clones).
 *
 * A writer follows the log with its live reader, which lags as it likes. It judges from what it has
 * read: which resources it serves, what is settled, what has ended. Then it stores a turn under the
 * gate that it had read when it judged. So whoever stores something and then a gate knows: what the
 * writer stores behind that gate was judged with knowledge of it.
 *
 * A resource changes hands by an own. The new owner stores a gate of each writer that an own took the
 * resource from, and serves when it has read them all: then nothing can come from before it.
 * A caller that gives up stores an end, then gates of the owner and of those not yet shut out, as the
 * log up to the end has them. Then the log up to the last gate says whether the request took effect.
 *
 * Every option of a `do` is one atomic step of one party, so a pause of any length is a later turn: a
 * writer that sleeps between judging and storing is a turn that arrives late. A request is on offer
 * to every writer at any time, so copies that were sent, stored, delivered late or again are all in
 * it. Faults come from budgets, so that every run comes to rest. What must be true is in the macros
 * G1 to G6. docs/model.md says what is left out and what each mutation (a -D flag) breaks.
 */

/* --- sizes: the runner sets them ------------------------------------------------------------- */
#ifndef WRITERS
#define WRITERS 2
#endif
#ifndef RESOURCES
#define RESOURCES 1 /* at most 2: requests 1 and 3 are of the first, 2 of the second */
#endif
#ifndef REQUESTS
#define REQUESTS 2
#endif
#ifndef CONTROLS
#define CONTROLS 1
#endif
#ifndef MOVES
#define MOVES 1 /* of ownership, away from a writer that is alive */
#endif
#ifndef CRASHES
#define CRASHES 0
#endif
#ifndef LOSSES
#define LOSSES 0 /* a turn, its answer; or doubt without a loss */
#endif
#ifndef ENDS
#define ENDS 0 /* callers that force the end of a request */
#endif
#ifndef POLITE
#define POLITE 0 /* callers that ask the owner to cancel first */
#endif
#ifndef BUMPS
#define BUMPS 0 /* gates that somebody stores for no reason, or again */
#endif
/* -DEXPIRES: ends go after their time to live.
   -DOWNER_SHUTS_ALONE: control always dies behind its own. -DSWIFT: it never does, and own and gates are one step.
   -DHELD: handlers that wait. They begin long before their outcome is judged again and stored.
   -DCLONE: writer 1 is a copy of writer 0's machine: the same name, a life of its own. With -DCLAIMS it
   stores a claim and a gate when it connects, as a copy must, and whoever reads another's claim stops. */

#define OWNS (1 + MOVES + 2 * CRASHES + STOPS)
#ifdef CLONE
#define STOPS 2 /* both clones stop: the owner is gone */
#define NAME(n) (n == 1 -> 0 : n)
#else
#define STOPS 0
#define NAME(n) (n)
#endif
#define LOG_SIZE 24 /* entries; checked */
#define COPIES (2 * WRITERS) /* turns on their way: two of each writer */
#define BIT(i) (1 << (i))
#define ALL (BIT(REQUESTS) - 1) /* requests are bits: request 1 is bit 0 */
#if RESOURCES == 1
#define OF(res) ALL
#else
#define OF(res) ((res == 0 -> 5 : 2) & ALL)
#endif

/* --- properties: all of them, or the one that the runner names ------------------------------- */
#ifdef ONLY
#define CHECK(g, x) if :: ONLY != g || (x) :: else -> assert(x) fi
#else
#define CHECK(g, x) assert(x)
#endif
#define G1(x) CHECK(1, x) /* accepted is kept: at rest all is settled, and somebody serves */
#define G2(x) CHECK(2, x) /* one outcome */
#define G3(x) CHECK(3, x) /* one effect, on the state that it was computed from */
#define G4(x) CHECK(4, x) /* what a caller is told is so, and stays so */
#define G5(x) CHECK(5, x) /* an epoch has one owner */

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
mtype = { GATE, OWN, TURN, END, CLAIM };
mtype = { NONE, STORED, EXISTS, REFUSED }; /* answers to a turn: not yet, ok, 10077, 10071 */

typedef Entry {
    mtype kind;
    byte writer; /* whose gate, whose turn, the new owner */
    byte number; /* of an own or a turn; of a gate: 1 if a newer one replaced it */
    byte what;   /* requests that took effect; the request that ended; the resources that move */
    byte not;    /* requests that the turn settles as cancelled */
    byte by      /* the process that wrote a turn or a claim: tells a clone's from ours */
};
Entry log[LOG_SIZE];
byte log_end;
byte gate[WRITERS]; /* the position of each writer's newest */
byte owns;          /* the number of the newest own */
byte holder[RESOURCES];

typedef Copy { bit sent; byte gate; byte number; byte what; byte not; byte base };
Copy copy[COPIES];

/* --- what a reader knows from what it has read ----------------------------------------------- */
typedef Fold {
    byte read;
    byte owner[RESOURCES];
    byte open[RESOURCES]; /* writers that an own took it from and that are not shut out, a bit each */
    byte settled;
    byte ended;
    byte turns[WRITERS] /* the number of each writer's last turn in it */
};
Fold fold[WRITERS + 1]; /* the last one is a caller's, zero between its steps */

typedef Writer {
    bit dead;
    byte unclaimed; /* 1: to store a claim; 2: to read it; no gate counts before */
    bit used;     /* it owned something: a ghost */
    byte gate;    /* its own newest that it has read */
    byte shut;    /* writers whose gate it is about to store */
    byte hand;    /* what takes effect by the turn in its hands */
    byte not;     /* what that turn settles as cancelled */
    byte base;    /* what was settled when it computed that */
    byte stale;   /* of that: its resource was given away in the meantime */
    byte under;   /* the gate that the turn names; 0: not stored yet */
    byte number;  /* the turn's */
    mtype answer
};
Writer writer[WRITERS];

/* --- budgets, ghosts, scratch ---------------------------------------------------------------- */
byte losses = LOSSES;
byte crashes = CRASHES;
byte moves = MOVES;
byte bumps = BUMPS;
byte polite = POLITE;
byte asked;      /* requests that a caller has asked to cancel */
byte done;       /* requests that took effect */
byte settled;    /* the same, and what turns settled as cancelled */
byte expired;    /* requests whose end has outlived its time: nobody runs what is half as old */
byte told_done;  /* what callers were told */
byte told_not;
byte x;          /* zero between steps */
byte y;

/* --- the server's steps ---------------------------------------------------------------------- */

inline append(what_kind, whose) {
    log_end++;
    assert(log_end < LOG_SIZE);
    log[log_end].kind = what_kind;
    log[log_end].writer = whose
}

/* The one before is gone: who has not read it never will. */
inline store_gate(whose) {
    log[gate[whose]].number = 1;
    append(GATE, whose);
    gate[whose] = log_end
}

#define WAITS(n, c) (!writer[n].dead && writer[n].under == copy[c].gate && writer[n].number == copy[c].number && writer[n].answer == NONE && writer[n].under != 0)

inline reply_to(c, code) {
    if
    :: WAITS(c / 2, c) ->
        if
        :: writer[c / 2].answer = code
        :: losses > 0 -> losses--; SAY1("network: loses the answer to writer %d\n", c / 2)
        fi
    :: else
    fi
}

inline forget(c) {
    copy[c].sent = 0; copy[c].gate = 0; copy[c].number = 0; copy[c].what = 0; copy[c].not = 0; copy[c].base = 0
}

/* A turn's subject: writer and number; the mutation adds the request of a turn with one outcome. */
#ifdef ONE_OUTCOME_IN_NAME
#define IS_ONE(set) (((set) & ((set) - 1)) == 0)
#define SAME_NAME(p, set) (log[p].what == (set) || (!IS_ONE(log[p].what) && !IS_ONE(set)))
#else
#define SAME_NAME(p, set) true
#endif

/* Sets y: a turn with this name is there. */
inline look_for(whose, number_, set) {
    y = log_end;
    do
    :: y > 0 && !(log[y].kind == TURN && log[y].writer == whose && log[y].number == number_ && SAME_NAME(y, set)) -> y--
    :: else -> break
    od
}

/* The resources that a set of requests touches, as all their requests. */
#if RESOURCES == 1
#define TOUCHED(set) (set != 0 -> ALL : 0)
#else
#define TOUCHED(set) (((set & OF(0)) -> OF(0) : 0) | ((set & OF(1)) -> OF(1) : 0))
#endif

inline server_takes(c) {
    look_for(NAME(c / 2), copy[c].number, copy[c].what);
    if
    :: y != 0 -> SAY2("server: turn %d of writer %d is taken\n", copy[c].number, NAME(c / 2)); reply_to(c, EXISTS)
    :: gate[NAME(c / 2)] != copy[c].gate -> /* also when it is taken: which check is first is left open */
        SAY2("server: refuses turn %d of writer %d, there is a newer gate\n", copy[c].number, c / 2);
        reply_to(c, REFUSED)
    :: else ->
        append(TURN, NAME(c / 2));
        log[log_end].number = copy[c].number;
        log[log_end].what = copy[c].what;
        log[log_end].not = copy[c].not;
        log[log_end].by = c / 2;
        SAY3("server: stores turn %d of writer %d: requests %d take effect (1: first, 2: second, 4: third)\n", copy[c].number, c / 2, copy[c].what);
        G2(!(settled & (copy[c].what | copy[c].not)));
        G3(!(done & copy[c].what));
        G3((copy[c].base & TOUCHED(copy[c].what)) == (settled & TOUCHED(copy[c].what)));
        G4(!(told_not & copy[c].what));
        done = done | copy[c].what;
        settled = settled | copy[c].what | copy[c].not;
        reply_to(c, STORED)
    fi;
    y = 0;
    forget(c)
}

proctype Network(byte c) {
end:
    do
    :: atomic { copy[c].sent -> server_takes(c) }
    :: atomic { copy[c].sent && losses > 0 ->
        losses--; SAY2("network: loses turn %d of writer %d\n", copy[c].number, c / 2); forget(c) }
    od
}

/* --- reading --------------------------------------------------------------------------------- */

#ifdef OWNS_ROLLED_UP
#define REPLACED_OWN(p) (log[p].number != owns)
#else
#define REPLACED_OWN(p) false
#endif
#ifdef ENDS_ROLLED_UP
#define REPLACED_END(p) (p != last_end)
byte last_end;
#else
#define REPLACED_END(p) false
#endif

#ifdef LAST_OWNER_ALONE /* only the writer before the newest own is waited for */
#define ALREADY_OPEN(f) 0
#else
#define ALREADY_OPEN(f) fold[f].open[y]
#endif

inline fold_own(f, to) {
    y = 0;
    do
    :: y < RESOURCES ->
        if
        :: log[fold[f].read].what & BIT(y) ->
            fold[f].open[y] = ALREADY_OPEN(f) | BIT(fold[f].owner[y]);
            fold[f].open[y] = fold[f].open[y] & ~BIT(to);
            fold[f].owner[y] = to
        :: else
        fi;
        y++
    :: else -> break
    od;
    y = 0
}

inline fold_gate(f, whose) {
    y = 0;
    do
    :: y < RESOURCES -> fold[f].open[y] = fold[f].open[y] & ~BIT(whose); y++
    :: else -> break
    od;
    y = 0
}

inline fold_next(f) {
    fold[f].read++;
    if
    :: log[fold[f].read].kind == TURN && log[fold[f].read].number > fold[f].turns[log[fold[f].read].writer] ->
        G3(!(fold[f].settled & (log[fold[f].read].what | log[fold[f].read].not)));
        fold[f].settled = fold[f].settled | log[fold[f].read].what | log[fold[f].read].not;
        fold[f].turns[log[fold[f].read].writer] = log[fold[f].read].number
    :: log[fold[f].read].kind == END && !REPLACED_END(fold[f].read) -> fold[f].ended = fold[f].ended | log[fold[f].read].what
    :: log[fold[f].read].kind == OWN && !REPLACED_OWN(fold[f].read) -> fold_own(f, log[fold[f].read].writer)
    :: log[fold[f].read].kind == GATE && !log[fold[f].read].number -> fold_gate(f, log[fold[f].read].writer)
    :: else
    fi
}

/* --- control: two replicas at most, step by step; each may die between any two -------------------- */

#ifdef CLONE
#define ALIVE(w) ((w == 0 && (!writer[0].dead || !writer[1].dead)) || (w > 1 && !writer[w].dead))
#else
#define ALIVE(w) (!writer[w].dead)
#endif
#if RESOURCES == 1
#define SOMEBODY_IS_DEAD (!ALIVE(holder[0]))
#else
#define SOMEBODY_IS_DEAD (!ALIVE(holder[0]) || !ALIVE(holder[1]))
#endif
#ifdef OWN_NOT_CREATE_ONLY
#define IS_NEW(n) true
#else
#define IS_NEW(n) (n == owns + 1)
#endif

/* Writers that never owned anything are alike: they come in turn. */
#ifdef CLONE
#define MAY_BE_NEXT(w) true
#else
#define MAY_BE_NEXT(w) (writer[w - 1].used || writer[w - 1].dead)
#endif

/* What moves: what a dead writer held, or by suspicion any resources. */
inline choose_what(set, to) {
    set = 0; x = 0;
    do
    :: x < RESOURCES ->
        if
        :: holder[x] != to && (!ALIVE(holder[x]) || set != 0 || x == RESOURCES - 1) -> set = set | BIT(x)
        :: holder[x] == to || ALIVE(holder[x])
        fi;
        x++
    :: else -> break
    od;
    x = 0
}

inline take_from_holders(set, to, old) {
    x = 0;
    do
    :: x < RESOURCES ->
        if
        :: set & BIT(x) -> old = old | BIT(holder[x]); holder[x] = to
        :: else
        fi;
        x++
    :: else -> break
    od;
    x = 0;
    old = old & ~BIT(to)
}

proctype Control(byte c) {
    byte n, to, what, old;
end:
    do
    :: atomic {
        (SOMEBODY_IS_DEAD || moves > 0) && owns < OWNS ->
        if
        :: SOMEBODY_IS_DEAD
        :: else -> moves--
        fi;
        n = owns + 1;
        if
        :: ALIVE(0) -> to = 0
#ifndef CLONE
        :: ALIVE(1) -> to = 1
#endif
#if WRITERS > 2
        :: ALIVE(2) && MAY_BE_NEXT(2) -> to = 2
#endif
        fi;
        choose_what(what, to);
        goto storing }
    od;
storing:
    atomic {
        if
        :: IS_NEW(n) && what != 0 && owns < OWNS ->
            SAY3("control: own %d, resources %d now belong to writer %d\n", n, what, to);
            G5(n > owns);
            append(OWN, to);
            log[log_end].number = n;
            log[log_end].what = what;
            owns = n;
            writer[to].used = 1;
            take_from_holders(what, to, old);
#ifdef OWNER_SHUTS_ALONE
            goto leave
#endif
#ifdef SWIFT
            if
            :: old & 1 -> store_gate(0)
            :: else
            fi;
            if
            :: old & 2 -> store_gate(1)
            :: else
            fi;
            goto leave
#endif
        :: else -> goto leave
        fi };
shutting:
    atomic {
        if
        :: old & 1 -> store_gate(0); SAY1("control: gate of writer %d\n", 0); old = old & ~1
        :: old & 2 -> store_gate(1); SAY1("control: gate of writer %d\n", 1); old = old & ~2
#if WRITERS > 2
        :: old & 4 -> store_gate(2); SAY1("control: gate of writer %d\n", 2); old = old & ~4
#endif
        :: true -> goto leave /* dies here, or has done all */
        fi;
        goto shutting };
leave:
    atomic { n = 0; to = 0; what = 0; old = 0; goto end }
}

inline forget_fold(f) {
    fold[f].read = 0; fold[f].settled = 0; fold[f].ended = 0;
    fold[f].owner[0] = 0; fold[f].open[0] = 0; fold[f].turns[0] = 0; fold[f].turns[1] = 0;
#if RESOURCES > 1
    fold[f].owner[1] = 0; fold[f].open[1] = 0;
#endif
#if WRITERS > 2
    fold[f].turns[2] = 0
#endif
}

/* --- callers that give up: an end, gates, then the log says -------------------------------------- */

#if RESOURCES == 1
#define RESOURCE_OF(r) 0
#else
#define RESOURCE_OF(r) ((r) % 2)
#endif

/* Who may write the resource of request r, by the log up to p. A caller that dies between its end and its
   verdict is one that never goes on: nothing was told. */
inline who_may(r, p, into) {
    fold[WRITERS].owner[RESOURCE_OF(r)] = 0;
    do
    :: fold[WRITERS].read < p -> fold_next(WRITERS)
    :: else -> break
    od;
    into = BIT(fold[WRITERS].owner[RESOURCE_OF(r)]);
#ifndef GATE_OF_OWNER_ALONE
    into = into | fold[WRITERS].open[RESOURCE_OF(r)];
#endif
    forget_fold(WRITERS)
}

inline tell_done(set) { G4((done & (set)) == (set)); G4(!(told_not & (set))); told_done = told_done | (set) }
inline tell_not(set) { G4(!(done & (set))); G4(!(told_done & (set))); told_not = told_not | (set) }

proctype Caller(byte r) { /* r: from 0 */
    byte may, ended_at;
#ifdef WHO_MAY_BEFORE_END
    atomic { who_may(r, log_end, may) };
#endif
    atomic {
        SAY1("caller: ends request %d\n", r + 1);
        append(END, 0);
        log[log_end].what = BIT(r);
#ifdef ENDS_ROLLED_UP
        last_end = log_end;
#endif
        ended_at = log_end };
#ifndef WHO_MAY_BEFORE_END
    atomic { who_may(r, ended_at, may); ended_at = 0 };
#endif
gates:
    atomic {
        if
        :: may & 1 -> store_gate(0); SAY1("caller: gate of writer %d\n", 0); may = may & ~1
        :: may & 2 -> store_gate(1); SAY1("caller: gate of writer %d\n", 1); may = may & ~2
#if WRITERS > 2
        :: may & 4 -> store_gate(2); SAY1("caller: gate of writer %d\n", 2); may = may & ~4
#endif
        fi;
        if
        :: may != 0 -> goto gates
        :: else
        fi;
        /* The log up to the last gate never changes, so the verdict may as well be read at once. */
        if
        :: done & BIT(r) -> SAY1("caller: request %d was executed\n", r + 1); tell_done(BIT(r))
        :: else -> SAY1("caller: request %d is cancelled\n", r + 1); tell_not(BIT(r))
        fi }
}

#define OLDEST_END(p) (p <= log_end && log[p].kind == END && log[p].what != 0)

proctype Others() {
end:
    do
    :: atomic { polite > 0 -> polite--; SAY1("caller: asks to cancel request %d unless it has begun\n", 1); asked = asked | 1 }
    :: atomic { bumps > 0 -> bumps--;
        if
        :: store_gate(0)
        :: store_gate(NAME(1))
        fi }
#ifdef EXPIRES /* ends have a time to live: who has not read one by then never will */
    :: atomic { OLDEST_END(4) || OLDEST_END(5) || OLDEST_END(6) || OLDEST_END(7) || OLDEST_END(8) || OLDEST_END(9) || OLDEST_END(10) || OLDEST_END(11) || OLDEST_END(12) ->
        x = 4;
        do
        :: OLDEST_END(x) -> break
        :: else -> x++
        od;
        SAY1("server: the end at %d expires\n", x);
        expired = expired | log[x].what;
        log[x].what = 0;
        x = 0 }
#endif
    od
}

/* --- writers --------------------------------------------------------------------------------- */
#define me writer[n]

inline drop_turn() {
    me.hand = 0; me.not = 0; me.base = 0; me.stale = 0; me.under = 0; me.answer = NONE;
#ifndef NUMBERS_WITH_GAPS
    me.number = 0
#endif
}

/* A turn that was refused leaves its number to the next one. */
#ifdef NUMBERS_WITH_GAPS
#define NEXT_NUMBER (me.number >= fold[n].turns[NAME(n)] -> me.number + 1 : fold[n].turns[NAME(n)] + 1)
#else
#define NEXT_NUMBER (fold[n].turns[NAME(n)] + 1)
#endif

inline stop() {
    SAY1("writer %d: stops\n", n);
    drop_turn();
    me.dead = 1; me.gate = 0; me.unclaimed = 0; me.shut = 0;
    forget_fold(n)
}

#ifdef SERVE_AT_OWN
#define SERVES(res) (fold[n].owner[res] == NAME(n))
#else
#define SERVES(res) (fold[n].owner[res] == NAME(n) && fold[n].open[res] == 0)
#endif
#if RESOURCES == 1
#define SERVED (SERVES(0) -> ALL : 0)
#else
#define SERVED ((SERVES(0) -> OF(0) : 0) | (SERVES(1) -> OF(1) : 0))
#endif
#define KNOWN fold[n].settled
#ifdef NO_AGE_LIMIT
#define TOO_OLD 0
#else
#define TOO_OLD expired
#endif
#ifdef AGE_AT_START_ALONE
#define TOO_OLD_TO_STORE 0
#else
#define TOO_OLD_TO_STORE TOO_OLD
#endif
#define MAY_STORE (SERVED & ~(KNOWN | fold[n].ended))
#define MAY_RUN (MAY_STORE & ~TOO_OLD)

/* What reading an entry means to a writer, beyond the fold. */
inline read_one() {
#ifdef OWN_TURNS_SKIPPED /* it applied them when they were acknowledged, it believes */
    if
    :: log[fold[n].read + 1].kind == TURN && log[fold[n].read + 1].writer == NAME(n) -> fold[n].read++
    :: else -> fold_next(n)
    fi;
#else
    fold_next(n);
#endif
    if
#ifdef OWN_TURNS_SKIPPED
    :: log[fold[n].read].kind == TURN && log[fold[n].read].writer == NAME(n)
#endif
    :: log[fold[n].read].kind == GATE && !log[fold[n].read].number ->
        me.shut = me.shut & ~BIT(log[fold[n].read].writer);
        if
        :: log[fold[n].read].writer == NAME(n) && !me.unclaimed -> me.gate = fold[n].read
        :: else
        fi
    :: log[fold[n].read].kind == OWN && !REPLACED_OWN(fold[n].read) -> read_own()
    :: log[fold[n].read].kind == TURN && log[fold[n].read].writer == NAME(n) -> read_own_turn()
    :: log[fold[n].read].kind == CLAIM && log[fold[n].read].writer == NAME(n) ->
        if
        :: log[fold[n].read].by == n -> me.unclaimed = 0; me.shut = me.shut | BIT(NAME(n))
        :: else -> stop()
        fi
    :: else
    fi
}

inline read_own() {
    y = 0;
    do
    :: y < RESOURCES ->
        if
        :: fold[n].owner[y] == NAME(n) -> me.shut = me.shut | fold[n].open[y]
        :: else -> me.stale = me.stale | (me.hand & OF(y))
        fi;
        y++
    :: else -> break
    od;
    y = 0;
#if defined(CONTROL_SHUTS_ALONE) || defined(SWIFT)
    me.shut = 0
#endif
}

/* A turn under our name. The one that we hold is stored then, whatever the answers say. */
inline read_own_turn() {
    if
    :: log[fold[n].read].by != n ->
#ifndef IGNORE_CLONE
        SAY1("writer %d: reads a turn under its name that it did not store\n", n);
        stop()
#else
        skip
#endif
    :: else ->
        if
        :: me.under != 0 && log[fold[n].read].number == me.number -> me.answer = STORED
        :: else
        fi
    fi
}

/* One, or all that may run; what somebody asked to cancel may be settled without running. */
inline take_in_hand() {
    x = MAY_RUN;
    if
    :: true
    :: x & 1 -> x = 1
    :: x & 2 -> x = 2
#if REQUESTS > 2
    :: x & 4 -> x = 4
#endif
    fi;
    me.base = KNOWN;
    if
    :: me.hand = x
    :: x & asked -> me.not = x & asked; me.hand = x & ~asked
    fi;
    x = 0
}

inline send_to(c) {
    copy[c].sent = 1;
    copy[c].gate = me.under;
    copy[c].number = me.number;
    copy[c].what = me.hand;
    copy[c].not = me.not;
    copy[c].base = me.base
}

inline send() {
    SAY3("writer %d: stores requests %d under gate %d\n", n, me.hand, me.under);
#ifdef ANSWER_BEFORE_ACK
    tell_done(me.hand);
#endif
#ifdef APPLY_BEFORE_ACK
    fold[n].settled = fold[n].settled | me.hand | me.not;
#endif
    if
    :: !copy[2 * n].sent -> send_to(2 * n)
    :: else -> send_to(2 * n + 1)
    fi
}

#define FREE (!copy[2 * n].sent || !copy[2 * n + 1].sent)
#define UNDERWAY(c) (copy[c].sent && WAITS(n, c))
#define ON_ITS_WAY (UNDERWAY(2 * n) || UNDERWAY(2 * n + 1))
#define IDLE (!me.dead && me.gate != 0 && me.hand == 0 && me.not == 0 && FREE)
#define BEGUN (!me.dead && (me.hand != 0 || me.not != 0) && me.under == 0)

#ifdef STALE_IS_FINE
#define STALE 0
#else
#define STALE me.stale
#endif

/* Memory and answers follow the acknowledgement; they do not wait for the reader. */
inline applied() {
    if
    :: fold[n].turns[NAME(n)] >= me.number /* the reader was quicker */
    :: else -> fold[n].turns[NAME(n)] = me.number; fold[n].settled = fold[n].settled | me.hand | me.not
    fi;
    tell_done(me.hand);
    tell_not(me.not);
    drop_turn()
}

inline take_answer() {
    if
    :: me.answer == STORED -> applied()
    :: me.answer == EXISTS ->
        look_for(NAME(n), me.number, me.hand);
        if
#ifdef EXISTS_IS_STORED
        :: true -> y = 0; applied()
#else
        :: log[y].by == n -> y = 0; applied()
        :: else -> y = 0; stop()
#endif
        fi
    :: else
    fi
}

/* Refused, and the newer gate is read: the reader has not brought the turn, so it never will. */
inline refused() {
#ifdef HELD
    me.under = 0; me.answer = NONE
#else
#ifdef STORED_AGAIN_UNJUDGED
    me.under = me.gate; me.answer = NONE;
    send()
#else
    drop_turn()
#endif
#endif
}

/* What a writer that owns nothing and holds nothing has read shows to nobody before the next own that
   names it, so it reads up to there in one step. A gate that was replaced may have been read before. */
inline catch_up() {
    do
    :: log[fold[n].read + 1].kind == OWN && log[fold[n].read + 1].writer == NAME(n) -> read_one(); break
    :: else ->
        x = fold[n].read + 1;
        if
        :: log[x].kind == GATE && log[x].number ->
            if
            :: log[x].number = 0; read_one(); log[x].number = 1
            :: read_one()
            fi
        :: else -> read_one()
        fi
    od;
    x = 0
}

/* Nor does it show who has read what changes nothing for a writer. */
#define DULL(p) ((log[p].kind == GATE && (log[p].number || (log[p].writer != NAME(n) && !(OPEN & BIT(log[p].writer))))) || (log[p].kind == END && (log[p].what & KNOWN)) || (log[p].kind == TURN && log[p].by == n && log[p].number <= fold[n].turns[NAME(n)]))
#if RESOURCES == 1
#define OPEN fold[n].open[0]
#define OWNS_NOTHING (fold[n].owner[0] != NAME(n))
#else
#define OPEN (fold[n].open[0] | fold[n].open[1])
#define OWNS_NOTHING (fold[n].owner[0] != NAME(n) && fold[n].owner[1] != NAME(n))
#endif
#define LURKS (OWNS_NOTHING && me.hand == 0 && me.not == 0 && me.shut == 0)
#define NAMED(p) (p <= log_end && p > fold[n].read && log[p].kind == OWN && log[p].writer == NAME(n))
#define NAMED_AHEAD (NAMED(4) || NAMED(5) || NAMED(6) || NAMED(7) || NAMED(8) || NAMED(9) || NAMED(10) || NAMED(11) || NAMED(12) || NAMED(13) || NAMED(14) || NAMED(15) || NAMED(16) || NAMED(17) || NAMED(18) || NAMED(19) || NAMED(20))

inline read_some() {
    do
    :: fold[n].read < log_end && DULL(fold[n].read + 1) -> fold_next(n)
    :: else -> break
    od;
    if
    :: fold[n].read < log_end -> read_one()
    :: else
    fi
}

proctype Instance(byte n) {
end:
    do
#ifndef CLONE
    :: atomic { !me.dead && LURKS && NAMED_AHEAD -> catch_up() }
    :: atomic { !me.dead && !LURKS && fold[n].read < log_end -> read_some() }
#else
    :: atomic { !me.dead && fold[n].read < log_end -> read_some() }
#endif
    :: atomic { !me.dead && me.shut != 0 ->
        x = 0;
        do
        :: !(me.shut & BIT(x)) -> x++
        :: else -> break
        od;
        SAY2("writer %d: gate of writer %d\n", n, x);
        me.shut = me.shut & ~BIT(x);
        store_gate(x);
        x = 0 }
#ifdef CLAIMS
    :: atomic { !me.dead && me.unclaimed == 1 -> me.unclaimed = 2; append(CLAIM, NAME(n)); log[log_end].by = n; SAY1("writer %d: claims its name\n", n) }
#endif
#if !defined(HELD) && !defined(LATE_GATE)
    :: atomic { IDLE && MAY_RUN != 0 -> take_in_hand(); me.under = me.gate; me.number = NEXT_NUMBER; send() }
#else
    :: atomic { IDLE && MAY_RUN != 0 -> take_in_hand(); SAY2("writer %d: runs requests %d\n", n, me.hand) }
    :: atomic { BEGUN && FREE ->
#ifdef HELD
        me.hand = me.hand & MAY_STORE & ~(STALE | TOO_OLD_TO_STORE); /* judged again */
        me.not = me.not & MAY_STORE & ~STALE;
#endif
        if
        :: me.hand == 0 && me.not == 0 -> drop_turn()
        :: else -> me.under = me.gate; me.number = NEXT_NUMBER; send()
        fi }
#endif
    :: atomic { !me.dead && me.under != 0 && me.answer == NONE && FREE && (losses > 0 || !ON_ITS_WAY) ->
        if
        :: ON_ITS_WAY -> losses--
        :: else
        fi;
        SAY1("writer %d: no answer, stores the same again\n", n);
        send() }
    :: atomic { !me.dead && (me.answer == STORED || me.answer == EXISTS) -> take_answer() }
#ifdef ADOPT_UNREAD
    :: atomic { !me.dead && me.answer == REFUSED && me.gate < gate[NAME(n)] -> me.gate = gate[NAME(n)]; SAY2("writer %d: takes gate %d from the server\n", n, me.gate) }
#endif
    :: atomic { !me.dead && me.answer == REFUSED && me.gate > me.under -> refused() }
    :: atomic { crashes > 0 && !me.dead -> crashes--; SAY1("writer %d: dies\n", n); stop() }
    od
}

/* --- at rest --------------------------------------------------------------------------------- */

proctype AtRest() {
    timeout ->
    atomic {
#ifdef PROBE
        assert(false);
#endif
        G1((settled | told_not) == ALL);
        G4((told_done | told_not | (settled & ~told_done)) == ALL);
        x = 0;
        do
        :: x < RESOURCES ->
            G1(ALIVE(holder[x]));
#ifndef CLONE
            G1(fold[holder[x]].owner[x] == holder[x] && fold[holder[x]].open[x] == 0);
            G3((fold[holder[x]].settled & OF(x)) == (settled & OF(x)));
#endif
            x++
        :: else -> break
        od;
        x = 0
    }
}

init {
    atomic {
        x = 0;
        do
        :: x < WRITERS -> append(GATE, x); gate[x] = log_end; x++
        :: else -> break
        od;
        append(OWN, 0);
        owns = 1;
        log[log_end].number = 1;
        log[log_end].what = BIT(RESOURCES) - 1;
        x = 0;
        do
        :: x < WRITERS ->
            fold[x].read = log_end; writer[x].gate = gate[NAME(x)]; writer[x].answer = NONE;
#ifdef CLAIMS
            if
            :: x == 1 -> writer[1].gate = 0; writer[1].unclaimed = 1
            :: else
            fi;
#endif
            run Instance(x); x++
        :: else -> break
        od;
        x = 0;
        do
        :: x < COPIES -> run Network(x); x++
        :: else -> break
        od;
        x = 0;
        do
        :: x < CONTROLS -> run Control(x); x++
        :: else -> break
        od;
        x = 0;
        do
        :: x < ENDS -> run Caller(x); x++
        :: else -> break
        od;
        x = 0;
        run Others();
        run AtRest()
    }
}
