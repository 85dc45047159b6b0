/*
 * The server's check of a turn's gate, on one node and on three.
 *
 * Theory of operation. A turn names the gate that its writer has read, and the leader of the stream looks,
 * before it proposes the turn, whether that gate is still the last message of its subject. What the leader
 * has proposed and not yet applied is in flight: it will be in the log before the turn, and its sequence is
 * not known yet. So the leader remembers which subjects are in flight and refuses (10164) a check of one of
 * them. It remembers them by exact subject. A check that names a wildcard finds no such subject in flight
 * and looks at the applied messages alone: a gate in flight slips past it (mutation WILDCARD).
 *
 * Two servers; the log that both agree on only grows. A leader proposes; what it proposed is kept or lost
 * when it falls; a new leader has all that was kept and applies it before it checks anything.
 *
 * What must be true (G5): a turn is stored only behind the gate that it names, with no other gate of its
 * writer between. docs/model.md says what each mutation (a -D flag) breaks.
 */

#ifndef GATES
#define GATES 2 /* stored by others, without a condition */
#endif
#ifndef TURNS
#define TURNS 2
#endif
#ifndef ELECTIONS
#define ELECTIONS 1
#endif
#ifndef SERVERS
#define SERVERS 2 /* that may lead */
#endif
#define TRIES (2 * (TURNS + GATES)) /* of turns: some are refused and tried again */
#define LOG_SIZE (1 + GATES + TURNS + 1)

#ifdef ONLY
#define CHECK(g, x) if :: ONLY != g || (x) :: else -> assert(x) fi
#else
#define CHECK(g, x) assert(x)
#endif
#define G1(x) CHECK(1, x)
#define G5(x) CHECK(5, x)

#ifdef TELL
#define SAY1(text, a) printf(text, a)
#define SAY2(text, a, b) printf(text, a, b)
#else
#define SAY1(text, a) skip
#define SAY2(text, a, b) skip
#endif

mtype = { GATE, TURN };
typedef Entry { mtype kind; byte gate /* that a turn names */ };
Entry log[LOG_SIZE];    /* what a majority has, from 1 */
byte log_end;
byte applied[SERVERS];  /* how far each server is */
byte last_gate[SERVERS]; /* the newest gate in what it has applied */
Entry proposed[LOG_SIZE]; /* by the leader, in order, not yet with a majority */
byte proposals;
byte leader;
byte term_start;        /* what the log had when this leader was chosen */

byte gates = GATES;
byte turns = TURNS;
byte elections = ELECTIONS;
byte tries = TRIES;
byte known = 1;         /* the newest gate that the writer has read */
byte newest;            /* the newest gate in the log: a ghost */
byte under;             /* the gate that the turn on its way names; 0: none */
byte x;

/* Is a gate in flight: proposed by this leader, and not applied. Leaves x 0 if none is. */
inline look_in_flight(s) {
    x = proposals;
    do
    :: x > 0 && proposed[x].kind != GATE -> x--
    :: else -> break
    od;
    if
    :: x == 0 ->
        x = log_end;
        do
        :: x > applied[s] && x > term_start && log[x].kind != GATE -> x--
        :: else -> break
        od;
        if
        :: x <= applied[s] || x <= term_start -> x = 0
        :: else
        fi
    :: else
    fi
}

inline propose(what, names) {
    proposals++;
    proposed[proposals].kind = what;
    proposed[proposals].gate = names
}

#ifdef LEADS_BEFORE_IT_APPLIED
#define LEADS true
#elif defined(ONE_NODE) /* it checks and stores in one step */
#define LEADS (proposals == 0 && applied[0] == log_end)
#else
#define LEADS (applied[leader] >= term_start)
#endif

proctype Leader() {
end:
    do
    :: atomic { /* a gate: no condition */
        gates > 0 && LEADS -> gates--; propose(GATE, 0); SAY1("leader: proposes a gate, %d to come\n", gates) }
    :: atomic { under != 0 && turns == 0 -> under = 0 }
    :: atomic { /* a turn: checked now */
        under != 0 && turns > 0 && LEADS ->
#ifdef WILDCARD
        x = 0;
#else
        look_in_flight(leader);
#endif
        if
        :: x != 0 -> SAY1("leader: a gate is in flight, refuses the turn under gate %d\n", under) /* 10164 */
        :: else ->
            if
            :: last_gate[leader] == under -> turns--; propose(TURN, under); SAY1("leader: the newest gate is %d, proposes the turn\n", under)
            :: else -> SAY2("leader: refuses the turn under gate %d, %d is newer\n", under, last_gate[leader]) /* 10071 */
            fi
        fi;
        x = 0;
        under = 0 }
    :: atomic { /* a majority has the first of what was proposed: its place in the log is decided */
        proposals > 0 ->
        log_end++;
        log[log_end].kind = proposed[1].kind;
        log[log_end].gate = proposed[1].gate;
        if
        :: log[log_end].kind == GATE -> newest = log_end; SAY1("server: gate %d is in the log\n", log_end)
        :: else ->
            SAY2("server: the turn under gate %d is in the log, the newest gate is %d\n", log[log_end].gate, newest);
            G5(log[log_end].gate == newest)
        fi;
        x = 1;
        do
        :: x < proposals -> proposed[x].kind = proposed[x + 1].kind; proposed[x].gate = proposed[x + 1].gate; x++
        :: else -> break
        od;
        proposed[proposals].kind = 0; proposed[proposals].gate = 0;
        proposals--;
        x = 0 }
    :: atomic { elections > 0 && leader + 1 < SERVERS -> /* what had no majority is lost */
        elections--;
        SAY1("server: another leads, %d proposals are lost\n", proposals);
        do
        :: proposals > 0 ->
            if
            :: proposed[proposals].kind == GATE -> gates++ /* its sender tries again */
            :: else -> turns++
            fi;
            proposed[proposals].kind = 0; proposed[proposals].gate = 0; proposals--
        :: else -> break
        od;
        leader++;
        term_start = log_end }
    od
}

proctype Applies(byte s) {
end:
    do
    :: atomic { applied[s] < log_end ->
        applied[s]++;
        if
        :: log[applied[s]].kind == GATE -> last_gate[s] = applied[s]
        :: else
        fi }
    od
}

/* Whatever the writer has read of the log, from whichever server. */
proctype Writer() {
end:
    do
    :: atomic { under == 0 && turns > 0 && tries > 0 -> tries--; under = known }
    :: atomic { known < last_gate[0] -> known = last_gate[0]; SAY1("writer: reads gate %d\n", known) }
#if SERVERS > 1
    :: atomic { known < last_gate[1] -> known = last_gate[1]; SAY1("writer: reads gate %d\n", known) }
#endif
    od
}

proctype AtRest() {
    timeout ->
    atomic {
#ifdef PROBE
        assert(false);
#endif
        G1(turns == 0 || tries == 0);
        G1(gates == 0)
    }
}

init {
    atomic {
        log[1].kind = GATE; log_end = 1; newest = 1;
        applied[0] = 1; last_gate[0] = 1;
        x = 1;
        do
        :: x < SERVERS -> applied[x] = 1; last_gate[x] = 1; run Applies(x); x++
        :: else -> break
        od;
        x = 0;
        run Applies(0);
        run Leader();
        run Writer();
        run AtRest()
    }
}
