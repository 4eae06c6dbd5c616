/*
 * Who has which name: the directory of all workers of a process, or of an app in memory. And the boxes in which workers
 * find what others send to those names.
 *
 * A name leads to an agent, on one worker, for as long as the name lives: so what one sender sends to it comes in its
 * order. Messages under way hold the name that they were sent to. If another agent is given that key meanwhile, by
 * another name, they still go where they were sent.
 *
 * The directory is divided into parts by the hash of the key, each with a lock, which is held for a few steps: nothing
 * is allocated meanwhile, and no Lua runs.
 *
 * Threads: any, but where said otherwise.
 */
#pragma once

#include "base/mailbox.h"
#include "dict/siphash.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { NAMES_KEY_MAX = 255 };

/* What may be under way to one worker, or wait there for its agents: messages and replies, all together. */
enum { NAMES_UNDERWAY_BYTES = 64 << 20 };

struct names;

struct names_key {
	const char *data;
	size_t len;
};

struct name {
	atomic_uint refs;
	atomic_uint waiting; /* messages that were sent to it, and that its agent has not taken yet */
	uint32_t most;       /* of those */
	unsigned worker;     /* that has its agent */
	/*
	 * The channel of its agent. 0: one that is yet to be made, of `kind`. Its worker's: others look at it only if they
	 * are that worker, or have its part's lock.
	 */
	uint64_t channel;
	uint64_t hash;
	struct name *chain;      /* of its slot: the directory's */
	struct name *sibling;    /* the next of the same agent: its worker's */
	struct names_kind *kind; /* of an agent without a socket; NULL: an agent has registered it */
	atomic_bool is_listed;   /* who asks for its key finds it; the directory's */
	uint8_t len;
	char key[]; /* `len` bytes, and a 0 */
};

enum names_error {
	NAMES_OK,
	NAMES_EXISTS,  /* another agent has it */
	NAMES_ABSENT,  /* nobody has it, or who does is about to end */
	NAMES_BUSY,    /* too many messages wait for it, or too many bytes for its worker */
	NAMES_CROWDED, /* there are as many of its kind as there may be */
	NAMES_NO_MEMORY,
};

/*
 * For so many workers. ring(owner) is called, in any thread, when something comes into the empty box of a worker.
 * Without a key, it is drawn: nobody can know where a name will lie. NULL: there is no memory.
 */
struct names *names_new(unsigned workers, void (*ring)(void *owner), const struct siphash_key *key);

/* Nobody has any of its names, nor waits for mail any more. */
void names_free(struct names *names);

unsigned names_workers(const struct names *names);

/* ---- who has what ---- */

/* What a claim is about. */
struct names_claim {
	struct names_key key;
	uint32_t most; /* messages that may wait */
	unsigned worker;
	uint64_t channel;
	struct names_kind *kind;
	bool replaces; /* whoever has it loses it */
};

/*
 * The name is the caller's, until names_leave(). NAMES_EXISTS; or NAMES_OK, and *before is whoever has lost it, held as
 * well; NULL: nobody has.
 */
enum names_error names_claim(struct names *names, const struct names_claim *claim, struct name **name,
			     struct name **before);

/* Nobody finds it any more. False: that was so already. Whoever holds it has to leave it nevertheless. */
bool names_release(struct names *names, struct name *name);

/* Does who asks for its key find it? Any thread; it may be another's the next moment. */
static inline bool names_is_listed(const struct name *name)
{
	return atomic_load_explicit(&((struct name *)name)->is_listed, memory_order_relaxed);
}

void names_hold(struct name *name);
void names_leave(struct name *name);

/*
 * A kind of agents without a socket, by its name: how many there are, of all generations that declare it. It is there as
 * long as the directory is. NULL: there is no memory.
 */
struct names_kind *names_open_kind(struct names *names, const char *name);

/* Is there one of any kind, or one that is yet to be made? */
bool names_have_kinds(struct names *names);

/* What makes a name where there is none: of an agent that is yet to be made, on a worker that the key decides. */
struct names_birth {
	struct names_kind *kind;
	uint32_t at_once; /* so many of the kind on one worker */
	uint32_t most;    /* messages that may wait */
};

/*
 * The name, held, for one message: it counts among those that wait until names_taken(). `birth` may be NULL: a name
 * that is not there is NAMES_ABSENT.
 */
enum names_error names_find(struct names *names, struct names_key key, const struct names_birth *birth,
			    struct name **name);

/* Its agent has been made, or (0) has ended, and the next is yet to be made. Its worker's thread. */
void names_lead(struct names *names, struct name *name, uint64_t channel);

/* It has no agent, and no message waits for it: nobody finds it any more. True: so it is. */
bool names_release_unused(struct names *names, struct name *name);

/* A message to it waits no longer. It is still held. */
static inline void names_taken(struct name *name)
{
	atomic_fetch_sub_explicit(&name->waiting, 1, memory_order_relaxed);
}

/* How many there are. */
size_t names_count(struct names *names);

/* ---- what is sent ---- */

/* Its owner looks into it from now on: before he waits, and when it rings. */
void names_open_box(struct names *names, unsigned worker, void *owner);

/* Nobody reads it any more: room for it is refused. */
void names_close_box(struct names *names, unsigned worker);

/* Rings whoever looks into a box, so that all look. */
void names_ring_all(struct names *names);

/* Room for so many bytes that are to go to a worker, until names_return(). False: there is none. */
bool names_reserve(struct names *names, unsigned worker, size_t bytes);
void names_return(struct names *names, unsigned worker, size_t bytes);

/* Puts mail into a worker's box. */
void names_post(struct names *names, unsigned worker, struct mail *mail);

/* Has something come? The worker's thread. */
bool names_has_mail(const struct names *names, unsigned worker);

/* The worker's thread, or once that has ended: all that has come, the oldest first; NULL: nothing. */
struct mail *names_collect(struct names *names, unsigned worker);
