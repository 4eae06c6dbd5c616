/*
 * UDP, many datagrams in one system call: recvmmsg(2) and sendmmsg(2), and one message for several datagrams of a peer
 * where the kernel can take them together (UDP_GRO) or apart (UDP_SEGMENT).
 *
 * Where a socket is bound to all addresses, each message says to which of ours it came, and replies leave from there: a
 * client that asked one address does not listen to another.
 *
 * Threads: one owner.
 */
#pragma once

#include "net/datagram.h"

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>

enum {
	DATAGRAMS_MAX = 64,           /* messages in one system call */
	DATAGRAMS_SLOT_BYTES = 65536, /* for one that has come */
	DATAGRAMS_OUT_BYTES = 131072, /* that wait to be sent */
};

/* What a message says beside its bytes. */
union datagrams_control {
	char bytes[128];
	struct cmsghdr align;
};

/* One that has come. */
struct datagrams_message {
	struct sockaddr_in6 peer; /* IPv4 is mapped */
	struct in6_addr local;    /* to which of our addresses, IPv4 mapped; all zero: it is not known */
	const uint8_t *bytes;     /* until the next datagrams_receive() */
	uint32_t len;
	uint32_t
	    segment; /* it is datagrams of so many bytes, the last of them may have fewer; as `len`: it is one */
	bool is_cut; /* there was more of it than fits */
};

/* Where they come: for one socket after the other. */
struct datagrams_in {
	struct datagrams_message messages[DATAGRAMS_MAX];
	struct mmsghdr headers[DATAGRAMS_MAX];
	struct iovec parts[DATAGRAMS_MAX];
	struct sockaddr_storage names[DATAGRAMS_MAX];
	union datagrams_control control[DATAGRAMS_MAX];
	uint8_t *space;
	size_t space_bytes;
	uint32_t
	    lost; /* of the socket: what the last message said that the kernel had no room for, since it was opened */
};

/* NULL: no memory. Its pages are the system's until a message fills them. */
struct datagrams_in *datagrams_in_new(void);
void datagrams_in_free(struct datagrams_in *in);

/*
 * What has come, into `in->messages`: how many messages, `max` (1 .. DATAGRAMS_MAX) at most, 0: none now, or an error.
 * in->lost is set where the kernel has lost some and says so (SO_RXQ_OVFL).
 */
int datagrams_receive(struct datagrams_in *in, int fd, unsigned max);

/* How many datagrams the kernel had no room for so far, whoever has read the socket. */
uint32_t datagrams_lost(int fd);

/* How many datagrams a message is. */
static inline uint32_t datagrams_count(const struct datagrams_message *message)
{
	return message->len > message->segment ? (message->len + message->segment - 1) / message->segment : 1;
}

/* ---- out ---- */

/* What waits to be sent: one message. */
struct datagrams_entry {
	const void *whose; /* who has sent it, to know what may go with it */
	struct sockaddr_storage to;
	socklen_t to_bytes;
	struct in6_addr local; /* from there; all zero: as the kernel likes */
	uint32_t at, len;      /* in `bytes` */
	uint32_t segment;      /* of its datagrams but the last, which may have fewer bytes */
	uint32_t count;
	bool is_full; /* its last datagram is shorter, or it has no room: nothing is added to it */
};

/* Of one socket after the other: what one has left is sent before another has its turn. */
struct datagrams_out {
	int fd; /* -1: none yet */
	bool is_ipv6;
	bool segments; /* the kernel takes several datagrams as one message */
	unsigned first, count;
	uint32_t used;
	uint64_t unsent; /* datagrams that the system has refused: too large for the way, no route, … */
	int err; /* why it has last refused one, or an earlier one of a connected socket; the owner sets it to 0 */
	struct datagrams_entry entries[DATAGRAMS_MAX];
	uint8_t bytes[DATAGRAMS_OUT_BYTES];
};

void datagrams_out_init(struct datagrams_out *out);

/* Where a datagram goes. */
struct datagrams_way {
	int fd;
	bool is_ipv6; /* the socket */
	const void *whose;
	const struct sockaddr_in6 *peer; /* NULL: the socket is connected */
	const struct in6_addr *local;
};

/* Takes a copy of a datagram. False: there is no room, or something waits that another socket cannot send now. */
bool datagrams_put(struct datagrams_out *out, const struct datagrams_way *way, const uint8_t *bytes,
		   size_t len);

/* Sends what waits. 0, or UV_EAGAIN: some of it waits on, until out->fd is writable. */
int datagrams_flush(struct datagrams_out *out);

/* What is put next goes with nothing that waits. */
void datagrams_seal(struct datagrams_out *out);

/* What waits is lost, and counted as unsent. */
void datagrams_drop(struct datagrams_out *out);

static inline bool datagrams_are_waiting(const struct datagrams_out *out)
{
	return out->first < out->count;
}

/* ---- sockets ---- */

/* Sets what datagrams_receive() wants of a socket; `is_any`: it is bound to all addresses. What cannot be is left. */
void datagrams_prepare(int fd, bool is_ipv6, bool is_any);

/*
 * Sockets of one address (SO_REUSEPORT), in the order in which they were bound: a peer's datagrams always come to the
 * same one of the first n, by its address and port, whoever else binds that address later. 0 or an error.
 */
int datagrams_steer(int fd, unsigned n);

/* Which one that is, from 0 on; the peer is IPv6, mapped for IPv4. */
unsigned datagrams_place(const struct sockaddr_in6 *peer, unsigned n);
