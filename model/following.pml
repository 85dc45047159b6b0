/*
 * How one instance joins and follows its resource's journal: a reader from now, a marker, the past.
 *
 * One resource. Every option of a `do` is one atomic step of one party, so what is slow is a later
 * turn. The server is a leader, whose journal counts, and replicas, whose journals are prefixes of it;
 * a reader reads from one of them. What must be true is in the macros G1, G3 and G6.
 *
 * docs/model.md says what is left out, and what each mutation (a -D flag) breaks.
 */

/* --- sizes: the runner sets them ------------------------------------------------------------- */
#ifndef OUTCOMES
#define OUTCOMES 2
#endif
#ifndef FENCES
#define FENCES 2
#endif
#ifndef SWITCHES
#define SWITCHES 1 /* new readers because other resources of the instance changed */
#endif
#ifndef LOSSES
#define LOSSES 1 /* a reader; a commit's answer, a marker's; or a marker is stored late */
#endif
#ifndef REPLICAS
#define REPLICAS 2 /* the leader (0) is one of them */
#endif

/* A marker a switch, two a fence (its reader narrows, and widens), two at the start, one a loss. */
#define JOURNAL_MAX (OUTCOMES + FENCES + SWITCHES + 2 * FENCES + 2 + LOSSES)

/* --- properties: all of them, or the one that the runner names ------------------------------- */
#ifdef ONLY
#define CHECK(g, x) if :: ONLY != g || (x) :: else -> assert(x) fi
#else
#define CHECK(g, x) assert(x)
#endif
#define G1(x) CHECK(1, x) /* at rest: the owner serves, a standby has everything */
#define G3(x) CHECK(3, x) /* no gap at any position */
#define G6(x) CHECK(6, x) /* no gap in a new active's state */

#ifdef TELL
#define SAY(text) printf(text)
#define SAY1(text, a) printf(text, a)
#define SAY2(text, a, b) printf(text, a, b)
#else
#define SAY(text) skip
#define SAY1(text, a) skip
#define SAY2(text, a, b) skip
#endif

/* --- the server ------------------------------------------------------------------------------ */
mtype = { OUTCOME, FENCE, MARKER };

mtype kind[JOURNAL_MAX + 1];    /* the journal, from position 1 */
bit mine[JOURNAL_MAX + 1];      /* of a fence: it is the instance's */
byte gone[JOURNAL_MAX + 1];     /* the position that replaced it: a newer fence, a newer marker */
byte journal_end;
byte fence;                     /* the newest fence */
byte marker;                    /* the newest marker */
byte applied[REPLICAS];         /* how far each replica is; the leader's is journal_end */
byte late;                      /* markers whose writer waits no more */

#define HAS(replica) (replica == 0 -> journal_end : applied[replica])
#define BIT(p) (1 << (p))
#define UP_TO(p) ((2 << (p)) - 1)

typedef Reader {
    bit exists;
    bit narrow;     /* its filter takes fences and markers, no outcomes */
    byte replica;
    byte position;  /* it has looked at everything up to here */
    byte start      /* the position at which it was made */
};
Reader reader[3];
#define LIVE reader[0]
#define NEW reader[1] /* a live one whose entries are held back */
#define PAST reader[2]

/* --- the instance ---------------------------------------------------------------------------- */
mtype = { WHOLE, NARROW, BEHIND };   /* how much it is given: everything, fences, not enough */
mtype = { IDLE, MARKING, READING };  /* where it is in a switch: done, writes its marker, reads the past */

mtype given = BEHIND;
mtype stage = IDLE;
byte position;      /* the fold's */
int have;           /* the outcomes in its state, a bit a position */
bit serves;
byte own_fence;
byte unsure;        /* its commit that was stored, and it doesn't know; 0: none */
byte mark;          /* the acknowledged marker's position */
int held;

/* --- budgets, ghosts, scratch ---------------------------------------------------------------- */
byte outcomes_left = OUTCOMES;
byte fences_left = FENCES;
byte switches = SWITCHES;
byte losses = LOSSES;

int outcomes;       /* those in the journal, a bit a position */
byte x;             /* zero between steps */

/* --- the server's steps ---------------------------------------------------------------------- */
inline store(what) {
    assert(journal_end < JOURNAL_MAX);
    journal_end++;
    kind[journal_end] = what
}

inline replaces(p) {
    if
    :: p != 0 -> gone[p] = journal_end
    :: else
    fi
}

inline store_outcome() {
    outcomes_left--;
    store(OUTCOME);
    outcomes = outcomes | BIT(journal_end)
}

inline store_marker() {
    store(MARKER);
    replaces(marker);
    marker = journal_end
}

inline choose_replica(into) {
    into = 0;
    do
    :: into < REPLICAS - 1 -> into++
    :: break
    od
}

#define REMOVED(p, replica) (gone[p] != 0 && gone[p] <= HAS(replica))
#define TAKES(r, p) (kind[p] != OUTCOME || !r.narrow)

/* Everybody else: another owner's commits, control's fences, replicas, markers that come late. */
proctype Others() {
end:
    do
    :: atomic { outcomes_left > 0 && !mine[fence] ->
        store_outcome();
        SAY1("instance 2: commits, at position %d\n", journal_end) }
    :: atomic { fences_left > 0 ->
        fences_left--;
        store(FENCE);
        replaces(fence);
        fence = journal_end;
        if
        :: mine[fence] = 1
        :: true
        fi;
        SAY2("control: writes a fence at position %d, instance %d's\n", fence, 2 - mine[fence]) }
    :: atomic { late > 0 ->
        late--; store_marker();
        SAY1("network: a late marker arrives, at position %d\n", journal_end) }
    od
}

proctype Replica(byte r) {
end:
    do
    :: atomic { applied[r] < journal_end -> applied[r]++; SAY2("server: replica %d has position %d\n", r, applied[r]) }
    od
}

/* --- the fold -------------------------------------------------------------------------------- */
inline become_active(p) {
    serves = 1;
    own_fence = p;
    SAY1("instance 1: active by the fence at position %d\n", p);
    G6(have == (outcomes & UP_TO(p)))
}

inline fold(p) {
    if
    :: p > position ->
        position = p;
        SAY1("instance 1: folds position %d\n", p);
        if
        :: kind[p] == OUTCOME -> have = have | BIT(p)
        :: kind[p] == FENCE && mine[p] -> unsure = 0; become_active(p)
        :: kind[p] == FENCE && !mine[p] -> unsure = 0; serves = 0
        :: else
        fi;
        G3((outcomes & UP_TO(p)) == (have & UP_TO(p)))
    :: else
    fi
}

inline fall_behind() {
    serves = 0; unsure = 0; given = BEHIND
}

/* An entry of the live reader. Who reads only fences learns from one that it missed something. */
inline take(p) {
    if
    :: kind[p] == MARKER || given == BEHIND
    :: kind[p] != MARKER && given == WHOLE -> fold(p)
    :: kind[p] == FENCE && given == NARROW && p > position ->
        SAY1("instance 1: falls behind by the fence at position %d\n", p);
#ifdef START_AT_FENCE
        position = p;
#endif
        fall_behind()
    :: else
    fi
}

/* --- the switch ------------------------------------------------------------------------------ */
inline make_live() {
    NEW.exists = 1;
    NEW.narrow = (serves && given != BEHIND);
    choose_replica(NEW.replica);
    NEW.position = HAS(NEW.replica);
    NEW.start = NEW.position;
    SAY2("instance 1: makes a live reader on replica %d, behind position %d\n", NEW.replica, NEW.position)
}

inline make_past() {
    PAST.exists = 1;
    choose_replica(PAST.replica);
#ifdef START_AT_LIVE
    PAST.position = NEW.position;
#else
    PAST.position = position;
#endif
    if /* beyond the replica's end: from its end, which only repeats what is skipped by its position */
    :: PAST.position > HAS(PAST.replica) -> PAST.position = HAS(PAST.replica)
    :: else
    fi;
    SAY2("instance 1: makes a reader of the past on replica %d, behind position %d\n", PAST.replica, PAST.position)
}

inline forget(r) {
    r.exists = 0; r.narrow = 0; r.replica = 0; r.position = 0; r.start = 0
}

/* Who has everything up to now goes on with the old live reader until the marker; else with one of the past. */
#ifdef NARROW_IS_ENOUGH
#define NEEDS_PAST (!LIVE.exists)
#else
#define NEEDS_PAST (given == BEHIND)
#endif

inline begin() {
    stage = MARKING;
#ifndef MARKER_FIRST
    make_live()
#endif
}

inline marked() {
    mark = marker;
    SAY1("instance 1: its marker is at position %d\n", mark);
    stage = READING;
    if
    :: NEEDS_PAST -> forget(LIVE); make_past()
    :: else
    fi;
    if
    :: given == BEHIND -> given = WHOLE
    :: else
    fi
}

#ifdef DROP_HELD
#define KEPT(p) false
#else
#ifdef FROM_START
#define KEPT(p) ((p) > NEW.start)
#else
#define KEPT(p) ((p) > mark)
#endif
#endif

inline release() {
    SAY1("instance 1: has the past up to position %d\n", mark);
    forget(PAST);
    if
    :: !NEW.narrow -> given = WHOLE
    :: NEW.narrow && (serves && given != BEHIND) -> given = NARROW
#ifdef NARROW_ANYWAY
    :: NEW.narrow && !(serves && given != BEHIND) -> given = NARROW
#else
    :: NEW.narrow && !(serves && given != BEHIND) -> given = BEHIND
#endif
    fi;
    x = 1;
    do
    :: x <= journal_end ->
        if
        :: (held & BIT(x)) && KEPT(x) -> take(x)
        :: else
        fi;
        x++
    :: else -> break
    od;
    x = 0;
    LIVE.exists = 1; LIVE.narrow = NEW.narrow; LIVE.replica = NEW.replica; LIVE.position = NEW.position;
    forget(NEW);
    held = 0; mark = 0;
    stage = IDLE
}

/* Which marker ends the past. */
#ifdef ANY_MARKER
#define ENDS(p) true
#else
#ifdef EXACT_MARKER
#define ENDS(p) ((p) == mark)
#else
#ifdef FROM_START
#define ENDS(p) ((p) >= NEW.start)
#else
#define ENDS(p) ((p) >= mark)
#endif
#endif
#endif

inline take_marker(p) {
    if
    :: stage == READING && NEW.exists && ENDS(p) -> release()
    :: else
    fi
}

/* --- deliveries ------------------------------------------------------------------------------ */

/* On to the next entry that the reader's filter takes and its replica still has; into x, 0 for none. */
inline look(r) {
    x = 0;
    do
    :: x == 0 && r.position < HAS(r.replica) ->
        r.position++;
        if
        :: TAKES(r, r.position) && !REMOVED(r.position, r.replica) -> x = r.position
        :: else
        fi
    :: else -> break
    od
}

#define HAS_MORE(r) (r.exists && r.position < HAS(r.replica))

/* A reader is gone with its server: it is made again, behind what it has looked at. */
inline lose(r) {
    losses--;
    choose_replica(r.replica);
#ifdef REMADE_FROM_NOW
    r.position = HAS(r.replica);
#else
    if
    :: r.position > HAS(r.replica) -> r.position = HAS(r.replica)
    :: else
    fi;
#endif
    SAY2("network: loses a reader; it is made again on replica %d, behind position %d\n", r.replica, r.position)
}

proctype Instance() {
    byte p;
    /* It starts from a checkpoint, or from the beginning; it wrote none under a fence that it hasn't read. */
    atomic {
        do
        :: position < journal_end && !mine[position + 1] -> position++
        :: break
        od;
        have = outcomes & UP_TO(position) };
end:
    do
    :: atomic { stage == IDLE && (given == BEHIND || (serves && given == WHOLE)) -> begin() }
    :: atomic { stage == IDLE && given != BEHIND && switches > 0 -> switches--; begin() }
    :: atomic { stage == MARKING ->
        if
        :: store_marker(); marked()
        :: losses > 0 -> losses--; store_marker(); SAY1("network: loses the answer to the marker at position %d\n", marker)
        :: losses > 0 -> losses--; late++; SAY("network: a marker is on its way for long\n")
        fi }
    :: atomic { HAS_MORE(PAST) ->
        look(PAST); p = x; x = 0;
        if
        :: p != 0 && kind[p] != MARKER -> fold(p)
        :: p != 0 && kind[p] == MARKER -> take_marker(p)
        :: else
        fi;
        p = 0 }
    :: atomic { HAS_MORE(LIVE) ->
        look(LIVE); p = x; x = 0;
        if
        :: p != 0 && kind[p] != MARKER -> take(p)
        :: p != 0 && kind[p] == MARKER && !PAST.exists -> take_marker(p)
        :: else
        fi;
        p = 0 }
    :: atomic { HAS_MORE(NEW) ->
        look(NEW); p = x; x = 0;
        if
        :: p != 0 && kind[p] != MARKER ->
#ifdef FOLD_AT_ONCE
            take(p)
#else
            held = held | BIT(p); SAY1("instance 1: holds position %d\n", p)
#endif
        :: else
        fi;
        p = 0 }
#ifdef MARKER_FIRST
    :: atomic { stage == READING && !NEW.exists -> make_live() }
#endif
#ifdef NO_MARKER
    :: atomic { stage == READING && (PAST.exists -> !HAS_MORE(PAST) : !HAS_MORE(LIVE)) -> release() }
#endif
    :: atomic { LIVE.exists && losses > 0 -> lose(LIVE) }
    :: atomic { NEW.exists && losses > 0 -> lose(NEW) }
    :: atomic { PAST.exists && losses > 0 -> lose(PAST) }
    :: atomic { /* a commit: what is stored is in the state once its answer is there */
        serves && unsure == 0 && own_fence == fence && outcomes_left > 0 ->
        store_outcome();
        SAY1("instance 1: commits, at position %d\n", journal_end);
        if
        :: have = have | BIT(journal_end)
        :: losses > 0 -> losses--; unsure = journal_end; SAY("network: loses the answer\n")
        fi }
    :: atomic { serves && unsure != 0 && own_fence == fence -> have = have | BIT(unsure); unsure = 0 }
    :: atomic { serves && own_fence != fence ->
        SAY("instance 1: is refused by a newer fence\n");
        if
        :: given == NARROW -> fall_behind()
        :: else -> serves = 0; unsure = 0
        fi }
    od
}

/* --- at rest --------------------------------------------------------------------------------- */
proctype AtRest() {
    timeout ->
    atomic {
#ifdef PROBE
        assert(false);
#endif
        G1(stage == IDLE && given != BEHIND);
        G1(!mine[fence] || (serves && own_fence == fence));
        G1(have == outcomes)
    }
}

init {
    atomic {
        run Others();
        x = 1;
        do
        :: x < REPLICAS -> run Replica(x); x++
        :: else -> break
        od;
        x = 0;
        run Instance();
        run AtRest()
    }
}
