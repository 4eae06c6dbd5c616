/*
 * Descriptors of one thread, watched by an epoll set of their own.
 *
 * libuv's loop is for everything else; its descriptor is one of the set. A descriptor then costs one system call to
 * watch and none to forget (libuv: five), and an event one indirect call. The set is edge-triggered: a level-triggered
 * one asks every descriptor again, at the next poll, whether it has more. Only those are asked again that say so:
 * poller_again(). A descriptor stays registered while nothing is watched, so a peer's reset is noticed even then.
 *
 * Who owns a poller calls, for each turn of his loop, poller_wait(), poller_serve(), poller_run_loop() and
 * poller_forget(). Threads: a poller and its descriptors belong to one.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <uv.h>

struct polled;

struct polled_ops {
	/* It may be read, written, has an error: bits of epoll(7). 0: poller_again() asked for it. */
	void (*ready)(struct polled *polled, uint32_t events);

	/* It was closed in an earlier turn: nothing of the poller's leads to it any more, and it may be freed. */
	void (*closed)(struct polled *polled);
};

/* Embedded in whatever has a descriptor. */
struct polled {
	const struct polled_ops *ops;
	struct poller *poller;
	struct polled *next; /* of those that are ready, or else of those that are closed */
	int fd;              /* -1: closed */
	bool is_registered;  /* in the epoll set */
	bool is_ready;       /* in the poller's list */
	uint8_t flags;       /* its owner's */
};

enum { POLLER_EVENTS_MAX = 256 };

struct poller {
	int epoll_fd;
	uv_loop_t *loop;
	struct polled *ready;            /* no edge will tell */
	struct polled *closed;           /* their descriptors are; their memory waits for poller_forget() */
	_Atomic(uint64_t) busy_since_ms; /* for others: since when it has not waited; 0: it waits */
	bool loop_is_due;                /* libuv's turn: something of its own is to be served */
	int count;                       /* of the events */
	struct epoll_event events[POLLER_EVENTS_MAX];
};

/* `loop` outlives it. 0 or an error. */
int poller_init(struct poller *poller, uv_loop_t *loop);
void poller_deinit(struct poller *poller);

/* Takes over a non-blocking descriptor. Nothing is watched yet. */
void polled_init(struct polled *polled, struct poller *poller, int fd, const struct polled_ops *ops);

/*
 * Every change is a new edge: what is ready already is reported. With no events the descriptor stays in the set, where
 * the kernel still reports errors. 0 or an error.
 */
int poller_watch(struct polled *polled, uint32_t events);

/* No edge will tell that there is more: ready() is called in the next poll, which does not wait. */
void poller_again(struct polled *polled);

/* Closes the descriptor. Once poller_forget() is called, closed() is. */
void poller_close(struct polled *polled);

/* The same, but the descriptor is out of the set and the caller's, who may give it to another polled at once. */
int poller_release(struct polled *polled);

/*
 * Waits for at most so long (-1: for ever), and no longer than libuv may; then the loop's clock is that of the end.
 * Returns the milliseconds it meant to wait.
 */
int poller_wait(struct poller *poller, int timeout_ms);

/* Calls ready() of what poller_wait() has found. */
void poller_serve(struct poller *poller);

/* A last turn, without libuv's part: those that were to be asked again are closed when it is over. */
void poller_finish(struct poller *poller);

/* libuv's turn, where it has something to do. */
void poller_run_loop(struct poller *poller);

/* Calls closed() for what has been closed since the last call. */
void poller_forget(struct poller *poller);

/* When the last poll has ended, by the loop's clock; 0: one is waiting. Any thread. */
static inline uint64_t poller_busy_since_ms(const struct poller *poller)
{
	return atomic_load_explicit(&((struct poller *)poller)->busy_since_ms, memory_order_relaxed);
}
