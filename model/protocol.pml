/*
 * AegisIPC's protocol for one resource: lease, fence, commit, follow, redelivery.
 *
 * Every option of a `do` below is one atomic step of one party, so a pause of any length (a stopped
 * process, a slow network) is simply a later turn. What else can go wrong is drawn from budgets
 * (LOSSES, CRASHES, SUSPICIONS, DUPLICATES, CANCELS), so that every run comes to rest. What must be
 * true is in the macros G1 to G7 and is checked where it could first be untrue.
 *
 * docs/model.md says what is left out, why the merged steps lose nothing, and what each mutation
 * (a -D flag) breaks.
 */

/* --- sizes: the runner sets them ------------------------------------------------------------- */
#ifndef INSTANCES
#define INSTANCES 2
#endif
#ifndef REQUESTS
#define REQUESTS 2
#endif
#ifndef LOSSES
#define LOSSES 1 /* a commit, its answer, a delivery, an ack; or doubt without one */
#endif
#ifndef CRASHES
#define CRASHES 1
#endif
#ifndef SUSPICIONS
#define SUSPICIONS 1 /* failovers of an active that is alive */
#endif
#ifndef DUPLICATES
#define DUPLICATES 1 /* 1: a request may be stored twice, the server's deduplication map is gone */
#endif
#ifndef CANCELS
#define CANCELS 1
#endif

#define LOG_MAX (REQUESTS + DUPLICATES)
/* The first grant, one a suspicion, and two a crash: it can find its owner in a new lease again. */
#define EPOCH_MAX (1 + SUSPICIONS + 2 * CRASHES)
#ifdef MUTATED
#define JOURNAL_MAX (REQUESTS + EPOCH_MAX + 2)
#else
#define JOURNAL_MAX (REQUESTS + EPOCH_MAX)
#endif
#define COPIES (2 * INSTANCES) /* commits on their way: two of each instance */
#define BASE 4                 /* the state is the list of executed requests, as digits */

/* --- properties: all of them, or the one that the runner names ------------------------------- */
#ifdef ONLY
#define CHECK(g, x) if :: ONLY != g || (x) :: else -> assert(x) fi
#else
#define CHECK(g, x) assert(x)
#endif
#define G1(x) CHECK(1, x) /* accepted is kept */
#define G2(x) CHECK(2, x) /* one outcome */
#define G3(x) CHECK(3, x) /* one effect */
#define G5(x) CHECK(5, x) /* one active */
#define G6(x) CHECK(6, x) /* failover loses nothing */
#define G7(x) CHECK(7, x) /* order */

/* The runner prints a counterexample as the lines that its steps say. */
#ifdef TELL
#define SAY1(text, a) printf(text, a)
#define SAY2(text, a, b) printf(text, a, b)
#define SAY3(text, a, b, c) printf(text, a, b, c)
#else
#define SAY1(text, a) skip
#define SAY2(text, a, b) skip
#define SAY3(text, a, b, c) skip
#endif

/* --- the server ------------------------------------------------------------------------------ */
mtype = { FENCE, EXECUTED, CANCELLED };    /* journal entries */
mtype = { NONE, STORED, EXISTS, REFUSED }; /* answers to a commit: not yet, ok, 10077, 10071 */

byte request_log[LOG_MAX + 1]; /* request ids by sequence, from 1 */
byte log_end;

typedef Entry {
    mtype kind;
    byte id;    /* request (outcomes) */
    byte seq;   /* its sequence in the request log; 0 in a cancel */
    byte epoch;
    byte owner; /* fences */
    byte life;
    byte start
};
Entry journal[JOURNAL_MAX + 1];
byte journal_end;
byte fence;                     /* position of the newest fence; 0: none yet */
byte outcome[REQUESTS + 1];     /* position of a request's first outcome; 0: none */

typedef Consumer { bit exists; byte start; byte delivered; byte acked /* a bit a sequence */ };
Consumer consumer[EPOCH_MAX + 1]; /* one a grant; a grant is named by its epoch */

typedef Lease { byte owner; byte life; byte start };
Lease lease[EPOCH_MAX + 1];     /* as it was at each revision; a revision is an epoch */
byte leased;                    /* the lease's newest epoch */

typedef Copy { bit sent; byte id; byte seq; byte fence; byte epoch; byte life; byte result };
Copy copy[COPIES];

/* --- instances ------------------------------------------------------------------------------- */
byte life_of[INSTANCES];        /* the incarnation: new at each start */
typedef Instance {
    bit serving;
    byte read;      /* how far it has followed the journal */
    byte state;     /* the fold */
    byte highest;   /* the highest request sequence in the fold */
    byte fence;     /* its own, when serving */
    byte epoch;
    byte start;     /* the grant's */
    byte lost;      /* the last epoch that it was fenced out of */
    byte last;      /* the last sequence taken from its consumer without a gap */
    byte hand;      /* the request in its hands, its commit under way; 0: none */
    mtype answer
};
Instance instance[INSTANCES];

/* --- budgets, ghosts, scratch ---------------------------------------------------------------- */
byte losses = LOSSES;
byte crashes = CRASHES;
byte suspicions = SUSPICIONS;
byte cancels = CANCELS;

byte fold;                      /* the fold of the whole journal */
byte fold_highest;              /* the highest request sequence committed */
byte fold_at[EPOCH_MAX + 1];    /* the fold when the epoch's fence was stored */
byte stored[REQUESTS + 1];      /* outcomes stored, by request */
byte executed;                  /* requests that took effect, a bit each */
bit died_since[INSTANCES];      /* since the lease was last written */
byte x;                         /* zero between steps */

/* --- the server's steps ---------------------------------------------------------------------- */

/* A commit: create-only by request, and the active's fence must be the newest. */
#ifdef NO_CREATE_ONLY
#define IS_NEW(r) true
#else
#define IS_NEW(r) (outcome[r] == 0)
#endif
#ifdef NO_FENCE
#define FENCE_HOLDS(f) true
#else
#define FENCE_HOLDS(f) ((f) == fence)
#endif

inline store_outcome(what, request, at_seq, by_epoch) {
    journal_end++;
    journal[journal_end].kind = what;
    journal[journal_end].id = request;
    journal[journal_end].seq = at_seq;
    journal[journal_end].epoch = by_epoch;
    if
    :: outcome[request] == 0 -> outcome[request] = journal_end
    :: else
    fi;
    stored[request]++;
    G2(stored[request] == 1)
}

/* Each try has an inbox of its own: only the very life, epoch and request that wait get the answer. */
#ifdef STALE_ANSWER
#define SAME_EPOCH(n, c) true
#else
#define SAME_EPOCH(n, c) (instance[n].epoch == copy[c].epoch)
#endif
#define WAITS(n, c) (instance[n].hand != 0 && instance[n].answer == NONE && life_of[n] == copy[c].life && SAME_EPOCH(n, c) && instance[n].hand == copy[c].seq)

inline reply_to(c, code) {
    if
    :: WAITS(c / 2, c) ->
        if
        :: instance[c / 2].answer = code
        :: losses > 0 -> losses--; SAY1("network: loses the answer to instance %d\n", c / 2)
        fi
    :: else
    fi
}

inline server_takes(c) {
    if
    :: !FENCE_HOLDS(copy[c].fence) ->
        SAY2("server: refuses request %d of epoch %d, there is a newer fence\n", copy[c].id, copy[c].epoch);
        reply_to(c, REFUSED)
    :: FENCE_HOLDS(copy[c].fence) && IS_NEW(copy[c].id) && journal_end < JOURNAL_MAX ->
        G5(copy[c].fence == fence);
        G7(copy[c].seq > fold_highest);
        G3(copy[c].result == fold * BASE + copy[c].id);
        G3(!(executed & (1 << copy[c].id)));
        executed = executed | (1 << copy[c].id);
        SAY3("server: stores the outcome of request %d (sequence %d), written in epoch %d\n", copy[c].id, copy[c].seq, copy[c].epoch);
        store_outcome(EXECUTED, copy[c].id, copy[c].seq, copy[c].epoch);
        fold = fold * BASE + copy[c].id;
        fold_highest = copy[c].seq;
        reply_to(c, STORED)
    :: else ->
        SAY2("server: request %d has an outcome; refuses another (epoch %d)\n", copy[c].id, copy[c].epoch);
        reply_to(c, EXISTS)
    fi;
    forget(c)
}

inline forget(c) {
    copy[c].sent = 0; copy[c].id = 0; copy[c].seq = 0; copy[c].fence = 0;
    copy[c].epoch = 0; copy[c].life = 0; copy[c].result = 0
}

proctype Network(byte c) {
end:
    do
    :: atomic { copy[c].sent -> server_takes(c) }
    :: atomic { copy[c].sent && losses > 0 ->
        losses--; SAY2("network: loses request %d's commit by instance %d\n", copy[c].id, c / 2); forget(c) }
    od
}

/* --- the callers: when their patience ends, they write `cancelled` ---------------------------- */
proctype Callers() {
end:
    do
    :: atomic { cancels > 0 ->
        cancels--;
        x = 1;
        do
        :: x < REQUESTS -> x++
        :: break
        od;
        if
        :: IS_NEW(x) && journal_end < JOURNAL_MAX ->
            SAY1("caller: cancels request %d\n", x);
            store_outcome(CANCELLED, x, 0, 0)
        :: else
        fi;
        x = 0 }
    od
}

/* --- control --------------------------------------------------------------------------------- */

inline forget_consumer(e) {
    consumer[e].exists = 0; consumer[e].start = 0; consumer[e].delivered = 0; consumer[e].acked = 0
}

/* The old grant's position; what the lease says when its consumer isn't there. A replica may have
   looked long ago, so anything between is possible too. */
inline old_position(e, into) {
    into = lease[e].start;
    if
    :: !consumer[e].exists
    :: else ->
#ifdef START_LATE
        into = consumer[e].delivered + 1
#else
        if
        :: true
        :: consumer[e].start > into -> into = consumer[e].start
        fi;
        do
        :: into >= consumer[e].start && (consumer[e].acked & (1 << into)) -> into++
        :: break
        od
#endif
    fi
}

/* Any instance may be chosen; when it died since the lease was read, as the life before. */
inline choose_owner(who, which) {
    who = 0;
    do
    :: leased > 0 && who < INSTANCES - 1 -> who++
    :: break
    od;
    which = life_of[who];
    if
    :: died_since[who] -> which--
    :: true
    fi
}

inline lease_written() {
    leased++;
    SAY3("control: leases epoch %d to instance %d, from sequence %d\n", leased, lease[leased].owner, lease[leased].start);
    x = 0;
    do
    :: x < INSTANCES -> died_since[x] = 0; x++
    :: else -> break
    od;
    x = 0
}

inline write_fence(e) {
    SAY2("control: writes the fence of epoch %d, instance %d's\n", e, lease[e].owner);
    G5(e > journal[fence].epoch);
    journal_end++;
    journal[journal_end].kind = FENCE;
    journal[journal_end].epoch = e;
    journal[journal_end].owner = lease[e].owner;
    journal[journal_end].life = lease[e].life;
    journal[journal_end].start = lease[e].start;
    fence = journal_end;
    fold_at[e] = fold
}

#define OWNER_IS_DEAD (leased == 0 || life_of[lease[leased].owner] != lease[leased].life)

#ifndef CONTROL_STEPS

/* Any number of replicas. A compare-and-set that succeeds is one step that reads and writes, and
   one that fails is none; so replicas need no memory. */
proctype Control() {
end:
    do
    :: atomic { /* Fail over: a first grant, a dead owner, or a wrong suspicion. */
        leased < EPOCH_MAX && (OWNER_IS_DEAD || suspicions > 0) ->
        if
        :: OWNER_IS_DEAD
        :: else -> suspicions--
        fi;
        choose_owner(lease[leased + 1].owner, lease[leased + 1].life);
        if
        :: leased == 0 -> lease[1].start = 1
        :: else -> old_position(leased, lease[leased + 1].start)
        fi;
        lease_written() }
    :: atomic { /* The fence of any epoch that some replica may still have in mind. */
        leased > journal[fence].epoch && journal_end < JOURNAL_MAX ->
        x = leased;
        do
        :: x > journal[fence].epoch + 1 -> x--
        :: break
        od;
        write_fence(x);
        do
        :: x > 1 -> x--; forget_consumer(x)
        :: else -> break
        od;
        x = 0 }
    od
}

#else

/* The same, step by step, for two replicas that pause and die between any two. */
byte old_fence[2];

proctype Control(byte c) {
    byte epoch, owner, life, start;
end:
    do
    :: atomic { leased > journal[fence].epoch -> epoch = leased; goto fencing }
    :: atomic { /* decide */
        OWNER_IS_DEAD || suspicions > 0 ->
        if
        :: OWNER_IS_DEAD
        :: else -> suspicions--
        fi;
        epoch = leased;
        owner = 0;
        do
        :: leased > 0 && owner < INSTANCES - 1 -> owner++
        :: break
        od;
        life = life_of[owner];
        if
        :: epoch == 0 -> start = 1
        :: else -> old_position(epoch, start)
        fi;
        goto leasing }
    od;
leasing:
    atomic {
#ifdef LEASE_WITHOUT_CAS
        if
        :: epoch < EPOCH_MAX ->
#else
        if
        :: leased == epoch && epoch < EPOCH_MAX ->
#endif
            epoch++;
            lease[epoch].owner = owner;
            lease[epoch].life = life;
            lease[epoch].start = start;
            leased = epoch;
            SAY3("control: leases epoch %d to instance %d, from sequence %d\n", epoch, owner, start);
            owner = 0; life = 0; start = 0
        :: else -> goto leave
        fi };
fencing:
    atomic {
        if
        :: journal[fence].epoch >= epoch -> goto leave
        :: losses > 0 -> losses--; goto leave /* dies here */
        :: journal[fence].epoch < epoch -> old_fence[c] = fence
        fi };
    atomic {
        if
#ifdef FENCE_WITHOUT_EXPECTED
        :: journal_end < JOURNAL_MAX -> write_fence(epoch)
#else
        :: fence == old_fence[c] && journal_end < JOURNAL_MAX -> write_fence(epoch)
#endif
        :: else
        fi;
leave:
        epoch = 0; owner = 0; life = 0; start = 0; old_fence[c] = 0;
        goto end }
}

#endif

/* --- instances ------------------------------------------------------------------------------- */
#define me instance[n]

inline drop_state() {
    me.serving = 0; me.read = 0; me.state = 0; me.highest = 0; me.fence = 0; me.epoch = 0;
    me.start = 0; me.last = 0; me.hand = 0; me.answer = NONE
}

inline demote() {
    x = me.epoch;
    SAY2("instance %d: fenced out of epoch %d\n", n, x);
    drop_state();
    me.lost = x;
    x = 0
}

inline become_active(f) {
    me.serving = 1;
    me.fence = f;
    me.epoch = journal[f].epoch;
    me.start = journal[f].start;
    me.last = me.start - 1;
    SAY3("instance %d: active in epoch %d, its state is %d\n", n, me.epoch, me.state);
    G6(me.state == fold_at[me.epoch]);
    G6(me.fence != fence || me.state == fold)
}

#ifdef IGNORE_INCARNATION
#define OWN(f) (journal[f].owner == n && journal[f].epoch > me.lost)
#else
#define OWN(f) (journal[f].owner == n && journal[f].life == life_of[n] && journal[f].epoch > me.lost)
#endif

inline follow_one() {
    me.read++;
    if
    :: journal[me.read].kind == EXECUTED ->
        me.state = me.state * BASE + journal[me.read].id;
        if
        :: journal[me.read].seq > me.highest -> me.highest = journal[me.read].seq
        :: else
        fi
    :: journal[me.read].kind == FENCE && OWN(me.read) -> become_active(me.read)
    :: else
    fi
}

/* What a standby has read shows to nobody before it meets its own fence, so it reads in one step:
   how far it lags is when it takes that step. */
#define AHEAD(p) (p <= journal_end && p > me.read && journal[p].kind == FENCE && OWN(p))
#define FENCE_AHEAD (AHEAD(1) || AHEAD(2) || AHEAD(3) || AHEAD(4) || AHEAD(5) || AHEAD(6) || AHEAD(7) || AHEAD(8) || AHEAD(9))

inline follow() {
    do
    :: !me.serving -> follow_one()
    :: else -> break
    od
}

/* The consumer from the grant's start, or from behind what is committed: both are early enough. */
inline make_consumer() {
    consumer[me.epoch].exists = 1;
    if
    :: consumer[me.epoch].start = me.start
    :: me.highest + 1 > me.start -> consumer[me.epoch].start = me.highest + 1
    fi;
    consumer[me.epoch].delivered = consumer[me.epoch].start - 1;
    consumer[me.epoch].acked = 0;
    me.last = consumer[me.epoch].delivered
}

inline ack(s) {
    if
    :: consumer[me.epoch].exists ->
        consumer[me.epoch].acked = consumer[me.epoch].acked | (1 << s)
    :: losses > 0 -> losses--
    :: !consumer[me.epoch].exists
    fi
}

#ifdef NO_SKIP
#define COMMITTED(s) false
#else
#define COMMITTED(s) ((s) <= me.highest)
#endif
#ifdef NO_GAP_CHECK
#define HAS_GAP(s) false
#else
#define HAS_GAP(s) ((s) > me.last + 1)
#endif

/* A delivery, the first or another: skip what is known by its sequence, run the rest. */
inline take(s) {
    if
    :: HAS_GAP(s) -> SAY2("instance %d: gap before sequence %d, asks again\n", n, s); make_consumer()
    :: !HAS_GAP(s) && (COMMITTED(s) || s <= me.last) ->
        SAY3("instance %d: skips sequence %d, has committed up to %d\n", n, s, me.highest);
        G1(outcome[request_log[s]] != 0);
        if
        :: s > me.last -> me.last = s
        :: else
        fi;
        ack(s)
    :: else ->
        me.last = s;
        me.hand = s;
        SAY3("instance %d: runs request %d (sequence %d)\n", n, request_log[s], s);
#ifdef ACK_BEFORE_COMMIT
        ack(s);
#endif
#ifdef APPLY_BEFORE_ACK
        apply(s);
#endif
        send()
    fi
}

inline apply(s) {
    me.state = me.state * BASE + request_log[s];
    me.highest = s
}

#ifdef APPLY_BEFORE_ACK
#define RESULT me.state
#define APPLY skip
#else
#define RESULT (me.state * BASE + request_log[me.hand])
#define APPLY apply(me.hand)
#endif

inline send_to(c) {
    copy[c].sent = 1;
    copy[c].id = request_log[me.hand];
    copy[c].seq = me.hand;
    copy[c].fence = me.fence;
    copy[c].epoch = me.epoch;
    copy[c].life = life_of[n];
    copy[c].result = RESULT
}

inline send() {
    if
    :: !copy[2 * n].sent -> send_to(2 * n)
    :: else -> send_to(2 * n + 1)
    fi
}

#define FREE (!copy[2 * n].sent || !copy[2 * n + 1].sent)
#define UNDERWAY(c) (copy[c].sent && WAITS(n, c))
#define ON_ITS_WAY (UNDERWAY(2 * n) || UNDERWAY(2 * n + 1))

/* The stored outcome is this very commit, stored by an earlier try whose answer was lost. */
#ifdef EXISTS_MEANS_CANCELLED
#define IS_OWN(p) false
#else
#define IS_OWN(p) (journal[p].kind == EXECUTED && journal[p].epoch == me.epoch && journal[p].seq == me.hand)
#endif

inline finish() {
#ifndef ACK_BEFORE_COMMIT
    ack(me.hand);
#endif
    me.hand = 0; me.answer = NONE
}

#define IDLE (me.serving && me.hand == 0 && FREE && consumer[me.epoch].exists)
/* Delivered and not acknowledged, a bit a sequence. */
#define UNACKED (((1 << (consumer[me.epoch].delivered + 1)) - (1 << consumer[me.epoch].start)) & ~consumer[me.epoch].acked)

proctype Member(byte n) {
end:
    do
    :: atomic { !me.serving && FENCE_AHEAD -> follow() }
#ifdef SERVE_BEFORE_OWN_FENCE
    :: atomic { !me.serving && me.read < journal_end -> follow_one() }
    :: atomic { !me.serving && fence > me.read && OWN(fence) -> become_active(fence) }
#endif
    :: atomic { me.serving && fence != me.fence -> demote() }
    :: atomic { me.serving && !consumer[me.epoch].exists -> make_consumer() }
    :: atomic { me.serving && consumer[me.epoch].exists && losses > 0 -> losses--; make_consumer() }
    :: atomic { /* a first delivery, or its loss */
        IDLE && consumer[me.epoch].delivered < log_end ->
        consumer[me.epoch].delivered++;
        if
        :: losses > 0 -> losses--; SAY2("network: loses sequence %d on its way to instance %d\n", consumer[me.epoch].delivered, n)
        :: x = consumer[me.epoch].delivered; take(x); x = 0
        fi }
    :: atomic { /* a redelivery */
        IDLE && UNACKED != 0 ->
        if
        :: UNACKED & 2 -> x = 1
        :: UNACKED & 4 -> x = 2
        :: UNACKED & 8 -> x = 3
        :: UNACKED & 16 -> x = 4
        fi;
        take(x); x = 0 }
    :: atomic { /* No answer: the same again; early, while the first is still on its way, or not. */
        me.hand != 0 && me.answer == NONE && FREE && (losses > 0 || !ON_ITS_WAY) ->
        if
        :: ON_ITS_WAY -> losses--
        :: else
        fi;
        SAY2("instance %d: no answer, commits request %d again\n", n, request_log[me.hand]);
        send() }
    :: atomic { me.answer == STORED -> APPLY; finish() }
    :: atomic { me.answer == EXISTS ->
        if
        :: IS_OWN(outcome[request_log[me.hand]]) -> APPLY
        :: else
        fi;
        finish() }
    :: atomic { me.answer == REFUSED -> demote() }
    :: atomic { crashes > 0 ->
        SAY1("instance %d: dies and starts again\n", n);
        crashes--; life_of[n]++; died_since[n] = 1;
        if /* before or after its last commit left the machine */
        :: UNDERWAY(2 * n) -> forget(2 * n)
        :: true
        fi;
        drop_state(); me.lost = 0 }
    od
}

/* --- at rest --------------------------------------------------------------------------------- */

/* When nothing is left to do: each accepted request has its outcome, and the active holds the fold. */
proctype AtRest() {
    timeout ->
    atomic {
#ifdef PROBE
        assert(false);
#endif
        x = 1;
        do
        :: x <= REQUESTS -> G1(outcome[x] != 0); x++
        :: else -> break
        od;
        x = journal[fence].owner;
        G1(instance[x].serving && instance[x].fence == fence);
        G3(instance[x].state == fold);
        x = 0
    }
}

/* Requests are named in the order of acceptance. They are all there from the start: a later
   acceptance shows only as a later delivery. */
inline accept() {
    x = 1;
    do
    :: x <= REQUESTS -> log_end++; request_log[log_end] = x; x++
    :: log_end > 0 && log_end - x + 1 < DUPLICATES -> /* again, any that is there */
        log_end++;
        if
        :: request_log[log_end] = 1
        :: x > 2 -> request_log[log_end] = 2
        :: x > 3 -> request_log[log_end] = 3
        fi
    :: x > REQUESTS -> break
    od;
    x = 0
}

init {
    atomic {
        accept();
        run Callers();
#ifdef CONTROL_STEPS
        run Control(0);
        run Control(1);
#else
        run Control();
#endif
        x = 0;
        do
        :: x < COPIES -> run Network(x); x++
        :: else -> break
        od;
        x = 0;
        do
        :: x < INSTANCES -> instance[x].answer = NONE; run Member(x); x++
        :: else -> break
        od;
        x = 0;
        run AtRest()
    }
}
