/*
 * Streams: what carries a connection's bytes.
 *
 * A connection reads and writes through a stack of at most three streams. The lowest one has the descriptor, or in
 * tests two queues in memory; each of the others (layers: TLS, the PROXY protocol) reads and writes through the one
 * below it. Its state is allocated with the connection.
 *
 *   struct conn ── io.stream ──▶ [ layer ] ── below ──▶ [ socket or memory ] ──▶ poller
 *        ▲                                                     │
 *        └──────────── events->ready(), events->closed() ◀─────┘
 *
 * Events come from the lowest stream and go to the user directly; no layer sees them pass. Which of them concern a
 * user that wants to read or write is for the layers to say: stream_needs().
 *
 * Threads: all of it runs on the thread that owns the connection.
 */
#pragma once

#include "base/reason.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

struct sockaddr_in6;
struct sockaddr_storage;
struct stream;
struct stream_user;

/* What a user wants to do, what a descriptor is ready for. STREAM_BROKEN is reported whatever is wanted. */
enum { STREAM_READ = 1, STREAM_WRITE = 2, STREAM_BROKEN = 4 };

/* What the lowest stream reports to the user of the stack. */
struct stream_events {
	/* It is ready for these. */
	void (*ready)(struct stream_user *user, unsigned events);

	/* After close(), from the loop: nothing of the stack is used any more, and its memory is the user's. */
	void (*closed)(struct stream_user *user);
};

/* Embedded in whatever reads and writes through a stack. */
struct stream_user {
	const struct stream_events *events;
	struct stream *stream; /* the uppermost */
};

struct stream_ops {
	const char *name;
	bool is_layer;
	size_t bytes;        /* of a layer's state, which begins with a struct stream_layer */
	bool keeps_settings; /* it looks at its settings after it has opened as well: layers_follow() */

	/*
	 * The layer's beginning (a handshake): 0 when bytes can pass, UV_EAGAIN while it waits for what stream_needs()
	 * says, or the error that ends the connection. NULL: bytes can pass from the start.
	 */
	int (*open)(struct stream *stream);

	/* Reads up to n bytes. > 0: how many; 0: the peer has ended its stream; UV_EAGAIN; or an error. */
	ssize_t (*read)(struct stream *stream, void *to, size_t n);

	/*
	 * Writes what fits. >= 0: how many bytes are done with; UV_EAGAIN; or an error. Those that are not done with
	 * come again, perhaps with others behind them and at another address, and nothing else comes before them: a
	 * layer may have begun to work on them. A layer may also be done with fewer than fit: no event tells then, and
	 * only UV_EAGAIN says that it takes no more.
	 */
	ssize_t (*write)(struct stream *stream, const void *from, size_t n);

	/*
	 * The same, where more is to be written at once: this may wait for that, so that both go together. NULL: it
	 * goes at once.
	 */
	ssize_t (*write_more)(struct stream *stream, const void *from, size_t n);

	/* The same of several parts. NULL: they are written one by one. */
	ssize_t (*writev)(struct stream *stream, const struct iovec *parts, int n);

	/*
	 * For what the lowest stream has to be ready, so that what is wanted (STREAM_READ, STREAM_WRITE) can go on;
	 * while the layer opens, so that open() can. NULL: for what the one below needs.
	 */
	unsigned (*needs)(const struct stream *stream, unsigned wanted);

	/*
	 * May a read succeed without another event? A layer that would read from the one below asks that as well:
	 * stream_holds_input(). NULL: what the one below says.
	 */
	bool (*has_input)(const struct stream *stream);

	/* Bytes that were written and that the peer has not yet taken. NULL: of the one below. */
	size_t (*unsent)(struct stream *stream);

	/* Bytes from the peer that nobody has read. Closing a socket would then reset. NULL: of the one below. */
	size_t (*unread)(struct stream *stream);

	/* Sends our end of stream; reading goes on. 0; UV_EAGAIN: again once it can be written; or an error. */
	int (*shutdown)(struct stream *stream);

	/* Ends it, with a reset if asked for. A layer frees what it has and closes the one below. */
	void (*close)(struct stream *stream, bool reset);

	/* Our side's address. 0 or an error. NULL: of the one below. */
	int (*local_address)(struct stream *stream, struct sockaddr_storage *address);

	/*
	 * Of a layer, once it has opened: who the peer is, if not who the lowest stream is connected to. 0: that one;
	 * UV_ENOENT: it knows of no other; UV_EADDRNOTAVAIL: it is another, and nobody knows who, or whoever is in
	 * between speaks for itself. NULL: what the one below says.
	 */
	int (*peer_address)(struct stream *stream, struct sockaddr_in6 *address);

	/* The reason that an error of its own has as a close reason. REASON_NONE, or NULL: it is the peer's reset. */
	enum close_reason (*reason_of)(int err);

	/*
	 * Of a layer that has failed, in its opening or later: what for, in words for the log. Text that lasts until it
	 * is closed; NULL: it has not, or that is no news.
	 */
	const char *(*failure)(const struct stream *stream);

	/* ---- of the lowest stream only ---- */

	/* Of datagrams: how large one may be that is read, and how many may wait. NULL: it has none. */
	void (*bound)(struct stream *stream, uint32_t max_bytes, uint32_t waiting_max);

	/*
	 * As write(), of up to n bytes of a file, from `at` on. 0: there are none. UV_ENOTSUP: this file is to be read
	 * instead. NULL: so is any.
	 */
	ssize_t (*send_file)(struct stream *stream, int file, uint64_t at, size_t n);

	/* Sets what is reported. 0 or an error. */
	int (*watch)(struct stream *stream, unsigned events);

	/* No event will tell that there is more: ready(STREAM_READ) follows in the next poll. */
	void (*again)(struct stream *stream);
};

struct stream {
	const struct stream_ops *ops;
	struct stream_user *user;
};

struct stream_layer {
	struct stream stream;
	struct stream *below;
	const void *settings; /* of all streams of this layer; they outlive its opening; see keeps_settings */
};

enum { STREAM_LAYERS_MAX = 3 };

/* A layer of a stack: what it does, and by which settings, or NULL. */
struct layer {
	const struct stream_ops *ops; /* NULL: the end of a list of layers */
	const void *settings;
};

/* What stands on the lowest stream, the lowest layer first. Functions take NULL for none as well. */
typedef const struct layer stream_layers[STREAM_LAYERS_MAX + 1];

/* ---- a stack ---- */

/* Of the state of these layers. */
size_t layers_bytes(stream_layers layers);

/* Lays them out on top of a stack, in zeroed memory, which is aligned for pointers. */
void layers_init(stream_layers layers, void *memory, struct stream_user *user);

/*
 * Layers that keep their settings go on by those of these layers, which take the place of what they were made with; one
 * that is not among them has none from now on (NULL).
 */
void layers_follow(stream_layers layers, struct stream_user *user);

/* As stream_ops.bound(), if the lowest stream has that. */
void stream_bound(struct stream_user *user, uint32_t max_bytes, uint32_t waiting_max);

/* Puts one more, whose state is zeroed, on top of a stack. */
void stack_push(struct stream_layer *state, const struct layer *layer, struct stream_user *user);

struct stream *stream_below(const struct stream *stream);

/* The stream of a stack that has these ops, or NULL. */
struct stream *stream_find(const struct stream_user *user, const struct stream_ops *ops);

/* ---- what a user calls ---- */

static inline ssize_t stream_read(struct stream_user *user, void *to, size_t n)
{
	return user->stream->ops->read(user->stream, to, n);
}

static inline ssize_t stream_write(struct stream_user *user, const void *from, size_t n)
{
	return user->stream->ops->write(user->stream, from, n);
}

/* As stream_ops.write_more(). */
ssize_t stream_write_more(struct stream *stream, const void *from, size_t n);

/* As stream_ops.write(), of n > 0 parts. */
ssize_t stream_write_parts(struct stream *stream, const struct iovec *parts, int n);
ssize_t stream_writev(struct stream_user *user, const struct iovec *parts, int n);

/* As stream_ops.send_file(); UV_ENOTSUP where there are layers, too. */
ssize_t stream_send_file(struct stream_user *user, int file, uint64_t at, size_t n);

static inline int stream_shutdown(struct stream_user *user)
{
	return user->stream->ops->shutdown(user->stream);
}

static inline void stream_close(struct stream_user *user, bool reset)
{
	user->stream->ops->close(user->stream, reset);
}

/* May the stack have a beginning, and an end, of its own? */
static inline bool stream_is_layered(const struct stream_user *user)
{
	return user->stream->ops->is_layer;
}

/* Has a layer a beginning? Else bytes can pass from the start. */
bool stream_begins(const struct stream_user *user);

/* As stream_ops.open() of the layers, from below. */
int stream_open(struct stream_user *user);

/* For what the lowest stream is to be ready. */
unsigned stream_layers_need(const struct stream_user *user, unsigned wanted);

static inline unsigned stream_needs(const struct stream_user *user, unsigned wanted)
{
	return stream_is_layered(user) ? stream_layers_need(user, wanted) : wanted;
}

/* Makes the lowest stream report these. 0 or an error. */
int stream_watch(struct stream_user *user, unsigned events);

/* May a read of this stream succeed though no event comes? */
bool stream_holds_input(const struct stream *stream);

static inline bool stream_has_input(const struct stream_user *user)
{
	return stream_holds_input(user->stream);
}

/* ready(STREAM_READ) follows in the next poll. */
void stream_again(struct stream_user *user);

/* These go down to whoever knows. */
size_t stream_unsent(struct stream_user *user);
size_t stream_unread(struct stream_user *user);
size_t stream_unread_of(struct stream *stream);
int stream_local_address(struct stream_user *user, struct sockaddr_storage *address);
int stream_peer_address(struct stream_user *user, struct sockaddr_in6 *address);
enum close_reason stream_reason_of(const struct stream_user *user, int err);
const char *stream_failure(const struct stream_user *user);
