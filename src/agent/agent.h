/*
 * Agents: the Lua objects behind connections, and the one place from which Lua
 * is entered.
 *
 * Implements struct conn_handler. Every callback runs in a pooled coroutine
 * (run.c), so it may wait; while it does, a struct run keeps what is needed to
 * go on, and the connection is busy. Frames go in as a batch (batch.c): C passes
 * them to a compiled Lua loop, which calls proceed() for each and returns the
 * replies together.
 *
 * Threads: everything belongs to one worker.
 */
#pragma once

#include "agent/repeats.h"
#include "base/ticks.h"
#include "base/wheel.h"
#include "config/config.h"
#include "conn/conn.h"
#include "frame/codec.h"
#include "http/http.h"
#include "script/instance.h"
#include "stream/amplify.h"
#include "vm/vm.h"
#include "websocket/websocket.h"

#include <lua.h>
#include <stdatomic.h>

struct agent_endpoint;
struct app_work;
struct client_endpoint;
struct job_crew;
struct request;
struct residents;
struct task;
struct timers;
struct tls_context;

enum { TAKEOVER_WHY_BYTES = 320 };

/* What became of connections that were to migrate. */
struct takeovers {
	unsigned migrated;
	unsigned failed;              /* snapshot() or upgrade() raised, or there is none */
	unsigned deferred;            /* they have functions of conn:defer, which are of their VM */
	unsigned removed;             /* their listener is no more */
	char why[TAKEOVER_WHY_BYTES]; /* the first fault: "upgrade, chat.lua:14: …", or "" */
};

enum { AGENT_COROUTINES_KEPT = 64 };

/* A coroutine that is free, or belongs to a run. The registry keeps it alive. */
struct coroutine {
	lua_State *lua;
	int ref;
};

/* One per worker and generation of the script. */
struct agents {
	/* First: vm_of() leads here. The instance begins with its VM, which nearly all that agents do is about. */
	union {
		struct instance instance;
		struct vm vm;
	};
	struct conn_host *host;
	struct job_crew *crew;     /* which runs their jobs; NULL: they have none */
	struct wheel sleeps;       /* perilune.sleep, conn:read time-outs */
	struct wheel_node due;     /* of `sleeps`: those that are over and wait for agents_turn(); a list */
	struct wheel_node posted;  /* who has messages to be called with (recipient.h); a list */
	struct wheel_node heard;   /* who has messages of topics to be called with (member.h); a list */
	struct wheel_node ready;   /* calls that go on in agents_turn() (line.h); a list */
	struct ticks_start ticks;  /* since when there are agents */
	struct run *current;       /* the call that is running, or NULL */
	struct channel *accounted; /* whose ledger is open (ledger.h), or NULL */
	bool attached;             /* to the host's thread */
	enum reload_policy
	    removed_policy;            /* for connections of older generations whose listener is no more */
	struct agents *successor;      /* who takes its connections over; NULL: nobody does */
	const struct agents *policies; /* ... whose policies say whether: the successor's, or its own */
	atomic_size_t conns;           /* whose memory is not yet gone; anyone may read it */
	atomic_size_t lone;            /* agents without a socket; anyone may read it */
	/*
	 * How many connections of this generation have gone to newer ones, and how many the newest one could not take
	 * over. Written by the thread that has the agents; anyone may read them.
	 */
	atomic_uint migrated, not_migrated;
	struct takeovers takeovers;            /* of older generations' connections by this one */
	char declined_why[TAKEOVER_WHY_BYTES]; /* ... and why the first that stays could not be */
	struct counters *counters;
	struct http_worker http; /* of http:// listeners */
	struct websocket_worker websocket;

	/* What agents and the app have begun beside their calls: work.h, task.h, timer.h. */
	struct idmap works;             /* by the ids of their channels */
	struct idmap tasks;             /* by their serials */
	struct idmap links;             /* what channels have to do with others, by their ids: link.h */
	uint64_t last_serial;           /* of a call that has to do with tasks */
	struct task *unborn;            /* the next one's memory, or NULL */
	struct timers *timers;          /* NULL: there have been none */
	struct app_work *app;           /* NULL: it has begun nothing */
	struct residents *residents;    /* agents without a socket; NULL: the script declares none */
	struct request *unborn_request; /* the same: request.c */
	struct forward *kept_forwards;  /* memory of requests that are over: forward.h */
	struct client_endpoint *client_endpoints; /* what connections out have in common: client.h */
	struct client_endpoint *unborn_endpoint;  /* one that was not finished, or NULL */
	uint64_t endpoint_uses;
	size_t clients;         /* connections out, and those that are being made */
	bool app_is_superseded; /* it begins no more timers */
	bool app_is_over;       /* its work has ended, and it begins no more */

	struct coroutine pool[AGENT_COROUTINES_KEPT];
	unsigned pooled, kept_forward_count;

	/* Anchors: agents live in tables of ANCHORS_PER_TABLE, so that the collector never has
	 * to traverse one huge table in a single step. */
	int *anchor_tables;    /* registry references */
	uint32_t *anchor_next; /* free list; 0 ends it */
	uint32_t anchor_count, anchor_free;

	/*
	 * Of codecs in Lua: has the last decode() failed (what it raised is at AT_ERROR), or an encode() of a reply
	 * that a call has returned? And what has ended them from outside, or a long list of replies. See
	 * reply_forget().
	 */
	bool decode_failed, encode_failed;
	const struct channel *decoded; /* whose bytes decode() is being asked about; NULL: nobody's */
	enum guard_verdict decode_verdict, reply_verdict;
	const struct run *failing;        /* whose fault failed() is being told of; NULL: nobody's */
	struct agent_endpoint *endpoints; /* of the listeners, in the order of the configuration */
	unsigned endpoint_count;

	uint8_t echoed[BATCH_MAX]; /* views that came back as replies */
	struct view *view;         /* what this VM's view object stands for now; NULL: no views */
	const void *view_object;   /* to know it again */

	uint64_t memory_warning_ms; /* when the next may be logged */
	uint64_t finaliser_warning_ms;
	uint32_t log_frame_bytes;            /* of a faulty frame in the log */
	int redact_ref;                      /* record.redact, or LUA_NOREF */
	int receive_ref;                     /* runtime.receive */
	int open_ref;                        /* runtime.open_message */
	struct repeats repeats;              /* of faults and bad frames */
	char first_fault[256];               /* written once, */
	atomic_bool has_first_fault;         /* ... before this is set */
	char last_fault[TAKEOVER_WHY_BYTES]; /* "upgrade, chat.lua:14: …" */
	char codec_error[256];               /* what the last codec in Lua that failed had to say */
};

/* Bytes lent to a handler; dead (data is NULL) once proceed() has returned or waits. Its layout is
 * declared to LuaJIT in lua/perilune/view.lua. */
struct view {
	const uint8_t *data;
	uint32_t len;
};

/* What a listener's agents have in common. */
struct agent_endpoint {
	struct endpoint endpoint; /* first */
	struct codec codec;       /* of http://: raw, for what looks at bytes alone */
	struct http http;         /* what its connections speak where `is_http` */
	bool is_http;
	/*
	 * Of http:// and ws://: the endpoint of those of its connections that have become WebSockets, in the listener's
	 * place. It has `websocket`, and an upgrader_ref where the listener's agent is for WebSockets alone.
	 */
	struct agent_endpoint *websockets;
	struct websocket websocket;
	struct layer layers[STREAM_LAYERS_MAX + 1]; /* of its connections' streams */
	struct tls_context *tls;                    /* the settings of one of them, or NULL */
	struct amplify_settings amplify;            /* ... of another */
	enum reload_policy policy;                  /* for connections that older generations have */
	bool drains;              /* its connections are to be drained: agents_note_drains() */
	struct vm_budget budget;  /* of each call */
	uint32_t proceed_ms;      /* of each call with its waits; 0: any */
	uint32_t mailbox;         /* messages that may wait for a name of one of its agents */
	int opener_ref;           /* runtime.opener: conn → agent, opened */
	int upgrader_ref;         /* runtime.upgrader: the same for what comes from another generation */
	int loop_ref, single_ref; /* the compiled loops of this listener alone */
	int view_loop_ref, meta_loop_ref; /* for views, or LUA_NOREF; for values of codecs in Lua */
};

static inline struct agent_endpoint *agent_endpoint_of(const struct channel *channel)
{
	return (struct agent_endpoint *)(void *)channel->conn->endpoint;
}

/* Is there a call on its behalf, or a task, that has not come to its end? Then it cannot migrate now. */
bool agents_is_occupied(const struct channel *channel);

/*
 * Between frames, and from the loop: where the successor's policy for its listener is to migrate, hands the connection
 * over to it. False: it stays, for this time or until there is another successor: each is asked once.
 */
bool agents_migrate(struct channel *channel);

/*
 * Counts the connection among its successor's takeovers if it was to migrate and stays, whether agents_migrate() has
 * just said so or did at an earlier call.
 */
void agents_count_staying(const struct channel *channel);

/* A newer generation will ask connections anew that others could not take over. In the thread that has the agents. */
void agents_ask_anew(struct agents *agents);

/* Who takes over the connections, and whose policies say which; in the thread that has the agents. */
void agents_succeed(struct agents *agents, struct agents *successor, const struct agents *policies);

/* What becomes of one of their connections; they have a successor. */
enum reload_policy agents_policy(const struct agents *agents, const struct channel *channel);

/* The listeners whose connections are to be drained: there are none; none is new since the last call; one is. */
enum drains { DRAINS_NONE, DRAINS_NO_MORE, DRAINS_MORE };
enum drains agents_note_drains(struct agents *agents);

/* The first fault of any of its handlers, with its place; NULL: there was none. Any thread. */
const char *agents_first_fault(const struct agents *agents);

/*
 * One policy for the connections that older generations have, whatever each listener's is. In the thread that has them.
 */
void agents_set_policy(struct agents *agents, enum reload_policy policy);

/* One connection more, or fewer. */
static inline void agents_count(struct agents *agents, size_t more)
{
	size_t conns = atomic_load_explicit(&agents->conns, memory_order_relaxed);
	atomic_store_explicit(&agents->conns, conns + more, memory_order_relaxed);
}

static inline void agents_count_lone(struct agents *agents, size_t more)
{
	size_t lone = atomic_load_explicit(&agents->lone, memory_order_relaxed);
	atomic_store_explicit(&agents->lone, lone + more, memory_order_relaxed);
}

/* What the connections of a listener are opened with: its place in the configuration, its number in all generations. */
const struct endpoint *agents_endpoint(struct agents *agents, unsigned index, uint16_t slot);

/* The app's work ends, for good, though the agents are with their worker still. */
void agents_end_app(struct agents *agents);

/* They have no connections any more, and what the app has begun has ended then. In the thread that has them. */
bool agents_have_ended(struct agents *agents);

/* The frame codec of a listener. */
const struct codec *agents_codec(const struct agents *agents, unsigned listener);

/* Wakes those whose time has come; call once a turn. */
void agents_turn(struct agents *agents, uint64_t now_ms);

/* When agents_turn() must next run. */
uint64_t agents_next_ms(const struct agents *agents);

/* Logs the repeats of faults and bad frames whose window has ended; call once a turn. */
void agents_report(struct agents *agents);

extern const struct conn_handler AGENT_HANDLER;
