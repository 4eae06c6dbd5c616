/*
 * A recording: takes chunks of lines from the workers' tapes (taping.h) and hands them, one at a time, to whoever keeps
 * them; see docs/replay.md for what comes out.
 *
 * There is one at a time. Its memory is bounded: what the workers have recorded and nobody has kept yet is counted, and
 * past RECORDER_HELD_MAX they give up connections. Nobody waits for anybody.
 *
 * Threads: the main thread.
 */
#pragma once

#include "config/config.h"
#include "server/listeners.h"
#include "worker/taping.h"

#include <jansson.h>
#include <uv.h>

enum { RECORDER_HELD_MAX = 16 << 20, RECORDER_REASON_MAX = 160 };

struct worker;

/* Who keeps the lines. */
struct recorder_sink {
	void *owner;
	/* Takes bytes that free() frees; recorder_kept() follows, unless it says false: nothing is kept any more. */
	bool (*keep)(void *owner, char *bytes, size_t n);
	void (*end)(void *owner); /* nothing more comes */
};

struct recorder_limits {
	uint64_t bytes; /* 0: none */
	uint64_t ms;    /* 0: none */
};

enum recorder_stage { RECORDER_IDLE, RECORDER_RUNNING, RECORDER_ENDING };

struct recorder {
	enum recorder_stage stage;
	uv_timer_t timer; /* the limit of time; at the end: of patience */
	struct worker *workers;
	unsigned worker_count, unended; /* tapings that are not back yet */
	struct taping *tapings;         /* kept until no worker can have an order of theirs */
	bool *wanted;
	struct mailbox chunks;
	atomic_size_t held_bytes;
	uv_async_t *wake;           /* the server's, who calls recorder_look() then */
	struct mail *first, **last; /* chunks that wait to be kept */
	size_t keeping;             /* bytes of the one that is on its way; 0: none is */
	bool has_sink, is_ready, was_told, is_full;
	struct recorder_sink sink;
	struct recorder_limits limits;
	uint64_t began_us, taken_bytes;             /* taken: kept or waiting */
	uint64_t bytes, conns, frames, frame_bytes; /* that were given to the sink */
	char reason[RECORDER_REASON_MAX];           /* why it ends */
};

/* The timer is on the loop until recorder_close(). */
void recorder_open(struct recorder *recorder, uv_loop_t *loop, struct worker *workers, unsigned worker_count,
		   uv_async_t *wake);
void recorder_close(struct recorder *recorder);

/* Once the workers have ended. */
void recorder_deinit(struct recorder *recorder);

/*
 * Which listeners a text means: by name, address or port. Returns which, by slot, to be freed; NULL: none is meant, and
 * `why` lists those there are; or there is no memory.
 */
bool *recorder_find(const struct config *config, const struct listeners *listeners, const char *text,
		    char *why, size_t size);

/*
 * Begins. `wanted` is taken: by slot of the listener, LISTENER_SLOTS of them; NULL: all. False, and why: there is one
 * already, or no memory; then nothing is kept.
 */
bool recorder_begin(struct recorder *recorder, const struct config *config, unsigned generation, bool *wanted,
		    struct recorder_limits limits, struct recorder_sink sink, const char **why);

/* The sink takes what it is given from now on. */
void recorder_ready(struct recorder *recorder);

/* Ends it in an orderly way, with the reason in the trace's last line. Idempotent. */
void recorder_stop(struct recorder *recorder, const char *reason);

/* The sink is no more. */
void recorder_drop_stream(struct recorder *recorder, const char *reason);

/* What the sink was given last has been kept. */
void recorder_kept(struct recorder *recorder);

/* A taping is back. */
void recorder_taped(struct recorder *recorder);

/* Chunks may have come. */
void recorder_look(struct recorder *recorder);

/* The server ends: a sink that does not take the rest soon does not get it. */
void recorder_bound_rest(struct recorder *recorder);

static inline bool recorder_is_idle(const struct recorder *recorder)
{
	return recorder->stage == RECORDER_IDLE;
}
