/*
 * The yardstick of UDP: the fastest echo of datagrams one careful person writes by hand.
 *
 * One thread, one socket. A blocking recvmmsg() takes up to 64 of the datagrams that are there, each is copied to an
 * output buffer, and one sendmmsg() returns them all. It keeps nothing about peers.
 *
 * With --gso, the kernel hands over a burst of datagrams from one peer as one message, where the sender made it so, and
 * neighbours in a batch that go to the same peer leave as one message.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum {
	BATCH = 64,
	MESSAGE_BYTES = 64 << 10,
	/* Buffers whole pages apart would share one set of the first-level cache. */
	STRIDE = MESSAGE_BYTES + 64,
	BURST_BYTES = 65000, /* leaves room for headers in an IP packet */
	BURST_SEGMENTS = 64, /* what every kernel with UDP_SEGMENT takes */
	QUEUE_BYTES = 4 << 20,
};

union control {
	struct cmsghdr head;
	char bytes[CMSG_SPACE(sizeof(int))];
};

static int fd;
static bool gso;

static _Alignas(4096) uint8_t in[BATCH * STRIDE];
static _Alignas(4096) uint8_t out[BATCH * MESSAGE_BYTES];

static struct mmsghdr requests[BATCH], replies[BATCH];
static struct iovec request_bytes[BATCH], reply_bytes[BATCH];
static union control request_controls[BATCH], reply_controls[BATCH];
static struct sockaddr_in peers[BATCH]; /* of the requests */

static void die(const char *what)
{
	perror(what);
	exit(1);
}

/* The size of the datagrams in the nth request, of which the last may be shorter. */
static size_t request_segment(int nth)
{
	struct msghdr *m = &requests[nth].msg_hdr;
	int segment = (int)requests[nth].msg_len;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c))
		if (c->cmsg_level == IPPROTO_UDP && c->cmsg_type == UDP_GRO)
			memcpy(&segment, CMSG_DATA(c), sizeof segment);
	m->msg_controllen = sizeof request_controls[nth];
	return (size_t)segment;
}

/* Says how the kernel is to divide the nth reply. */
static void reply_divide(unsigned nth, size_t segment)
{
	struct cmsghdr *c = &reply_controls[nth].head;
	uint16_t size = (uint16_t)segment;

	c->cmsg_level = IPPROTO_UDP;
	c->cmsg_type = UDP_SEGMENT;
	c->cmsg_len = CMSG_LEN(sizeof size);
	memcpy(CMSG_DATA(c), &size, sizeof size);
	replies[nth].msg_hdr.msg_control = c;
	replies[nth].msg_hdr.msg_controllen = CMSG_SPACE(sizeof size);
}

static void reply_start(unsigned nth, struct sockaddr_in *peer, uint8_t *bytes, size_t len)
{
	reply_bytes[nth] = (struct iovec){ bytes, len };
	replies[nth].msg_hdr.msg_name = peer;
	replies[nth].msg_hdr.msg_control = NULL;
	replies[nth].msg_hdr.msg_controllen = 0;
}

/* Whether more datagrams may follow those of the nth reply, which are all of the same size. */
static bool reply_continues(unsigned nth, size_t size, const struct sockaddr_in *peer, size_t len,
			    size_t segment)
{
	const struct sockaddr_in *to = replies[nth].msg_hdr.msg_name;
	size_t total = reply_bytes[nth].iov_len + len;

	return to->sin_port == peer->sin_port && to->sin_addr.s_addr == peer->sin_addr.s_addr && len &&
	       (segment == size || (segment == len && len < size)) && total <= BURST_BYTES &&
	       total <= size * BURST_SEGMENTS;
}

/* Copies the requests to the output buffer and joins those that can be. Returns the number of replies. */
static unsigned echo_bursts(int count)
{
	unsigned n = 0;
	size_t at = 0, size = 0; /* size: of the datagrams in the last reply; zero when none may follow */

	for (int i = 0; i < count; i++) {
		size_t len = requests[i].msg_len, segment = request_segment(i);

		memcpy(out + at, request_bytes[i].iov_base, len);
		if (size && reply_continues(n - 1, size, &peers[i], len, segment)) {
			reply_bytes[n - 1].iov_len += len;
		} else {
			reply_start(n++, &peers[i], out + at, len);
			size = segment;
		}
		if (reply_bytes[n - 1].iov_len > size)
			reply_divide(n - 1, size);
		if (size && reply_bytes[n - 1].iov_len % size)
			size = 0;
		at += len;
	}
	return n;
}

/* Copies the requests to the output buffer, each to be a reply of its own. Returns their number. */
static unsigned echo(int count)
{
	size_t at = 0;

	for (int i = 0; i < count; i++) {
		size_t len = requests[i].msg_len;

		memcpy(out + at, request_bytes[i].iov_base, len);
		reply_bytes[i] = (struct iovec){ out + at, len };
		at += len;
	}
	return (unsigned)count;
}

/* What the kernel refuses to send is lost, as any datagram may be: the client counts. */
static void send_replies(unsigned count)
{
	unsigned done = 0;

	while (done < count) {
		int sent = sendmmsg(fd, replies + done, count - done, 0);

		if (sent > 0)
			done += (unsigned)sent;
		else if (errno != EINTR)
			done++;
	}
}

static void serve(void)
{
	for (;;) {
		int count = recvmmsg(fd, requests, BATCH, MSG_WAITFORONE, NULL);

		if (count > 0)
			send_replies(gso ? echo_bursts(count) : echo(count));
		else if (errno != EINTR)
			die("recvmmsg");
	}
}

static void prepare(void)
{
	for (size_t i = 0; i < BATCH; i++) {
		struct msghdr *request = &requests[i].msg_hdr, *reply = &replies[i].msg_hdr;

		request_bytes[i] = (struct iovec){ in + i * STRIDE, MESSAGE_BYTES };
		request->msg_iov = &request_bytes[i];
		reply->msg_iov = &reply_bytes[i];
		request->msg_name = reply->msg_name = &peers[i];
		request->msg_namelen = reply->msg_namelen = sizeof peers[i];
		request->msg_iovlen = reply->msg_iovlen = 1;
		if (gso) {
			request->msg_control = &request_controls[i];
			request->msg_controllen = sizeof request_controls[i];
		}
	}
}

static void listen_on(uint16_t port, int queue)
{
	struct sockaddr_in addr = { .sin_family = AF_INET, .sin_port = htons(port) };
	socklen_t len = sizeof addr;
	const int on = 1;

	addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		die("socket");
	/* The kernel allows net.core.rmem_max of it. */
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &queue, sizeof queue) != 0)
		die("SO_RCVBUF");
	if (gso && setsockopt(fd, IPPROTO_UDP, UDP_GRO, &on, sizeof on) != 0)
		die("UDP_GRO");
	if (bind(fd, (struct sockaddr *)&addr, sizeof addr) != 0)
		die("bind");
	if (getsockname(fd, (struct sockaddr *)&addr, &len) != 0)
		die("getsockname");
	printf("listening on 127.0.0.1:%u\n", (unsigned)ntohs(addr.sin_port));
	fflush(stdout);
}

static void pin(int core)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET((size_t)core, &set);
	if (sched_setaffinity(0, sizeof set, &set) != 0)
		die("sched_setaffinity");
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "port", required_argument, NULL, 'p' },
		{ "core", required_argument, NULL, 'c' },
		{ "queue", required_argument, NULL, 'q' },
		{ "gso", no_argument, NULL, 'g' },
		{ 0 },
	};
	uint16_t port = 0;
	int opt, queue = QUEUE_BYTES;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (opt) {
		case 'p':
			port = (uint16_t)strtoul(optarg, NULL, 10);
			break;
		case 'c':
			pin((int)strtol(optarg, NULL, 10));
			break;
		case 'q':
			queue = (int)strtol(optarg, NULL, 10);
			break;
		case 'g':
			gso = true;
			break;
		default:
			fprintf(stderr, "usage: udp_echo [--port N] [--core N] [--queue BYTES] [--gso]\n");
			return 2;
		}
	}
	listen_on(port, queue);
	prepare();
	serve();
}
