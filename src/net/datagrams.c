#include "net/datagrams.h"

#include "net/address.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/sock_diag.h>
#include <netinet/udp.h>
#include <stdlib.h>
#include <sys/mman.h>

/* Kernels have them that the C library's headers do not know of yet. */
#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

enum {
	SEGMENT_MAX = 1400, /* larger ones may be larger than a packet, and the kernel cuts none of these */
	SEGMENTS_MAX = 64,  /* UDP_MAX_SEGMENTS of older kernels */
	MESSAGE_BYTES_MAX = 60000, /* in one message of several */
	QUEUE_BYTES = 4 << 20      /* of what nobody has read yet; net.core.rmem_max may allow less */
};

/* ---- in ---- */

struct datagrams_in *datagrams_in_new(void)
{
	struct datagrams_in *in = calloc(1, sizeof *in);
	if (!in)
		return NULL;
	in->space_bytes = (size_t)DATAGRAMS_MAX * DATAGRAMS_SLOT_BYTES;
	in->space = mmap(NULL, in->space_bytes, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (in->space == MAP_FAILED) {
		free(in);
		return NULL;
	}
	for (unsigned i = 0; i < DATAGRAMS_MAX; i++) {
		in->parts[i] =
		    (struct iovec){ in->space + (size_t)i * DATAGRAMS_SLOT_BYTES, DATAGRAMS_SLOT_BYTES };
		in->headers[i].msg_hdr = (struct msghdr){ .msg_name = &in->names[i],
							  .msg_iov = &in->parts[i],
							  .msg_iovlen = 1,
							  .msg_control = &in->control[i] };
	}
	return in;
}

void datagrams_in_free(struct datagrams_in *in)
{
	if (!in)
		return;
	munmap(in->space, in->space_bytes);
	free(in);
}

static void read_local_ipv4(const struct cmsghdr *part, struct in6_addr *local)
{
	struct in_pktinfo info;
	memcpy(&info, CMSG_DATA(part), sizeof info);
	address_map_ipv4(&info.ipi_addr, local);
}

static void read_local_ipv6(const struct cmsghdr *part, struct in6_addr *local)
{
	struct in6_pktinfo info;
	memcpy(&info, CMSG_DATA(part), sizeof info);
	*local = info.ipi6_addr;
}

/* What the kernel says of a message. */
static void read_control(struct datagrams_in *in, struct msghdr *header, struct datagrams_message *message)
{
	for (struct cmsghdr *part = CMSG_FIRSTHDR(header); part; part = CMSG_NXTHDR(header, part)) {
		int segment;
		if (part->cmsg_level == IPPROTO_IP && part->cmsg_type == IP_PKTINFO) {
			read_local_ipv4(part, &message->local);
		} else if (part->cmsg_level == IPPROTO_IPV6 && part->cmsg_type == IPV6_PKTINFO) {
			read_local_ipv6(part, &message->local);
		} else if (part->cmsg_level == SOL_UDP && part->cmsg_type == UDP_GRO) {
			memcpy(&segment, CMSG_DATA(part), sizeof segment);
			message->segment = segment > 0 ? (uint32_t)segment : message->segment;
		} else if (part->cmsg_level == SOL_SOCKET && part->cmsg_type == SO_RXQ_OVFL) {
			memcpy(&in->lost, CMSG_DATA(part), sizeof in->lost);
		}
	}
}

static void read_message(struct datagrams_in *in, unsigned i)
{
	struct msghdr *header = &in->headers[i].msg_hdr;
	struct datagrams_message *message = &in->messages[i];
	*message = (struct datagrams_message){ .bytes = in->parts[i].iov_base,
					       .len = in->headers[i].msg_len,
					       .segment = in->headers[i].msg_len,
					       .is_cut = header->msg_flags & MSG_TRUNC };
	address_map(&in->names[i], &message->peer);
	if (header->msg_controllen)
		read_control(in, header, message);
}

uint32_t datagrams_lost(int fd)
{
	uint32_t info[SK_MEMINFO_VARS] = { 0 };
	socklen_t bytes = sizeof info;
	return getsockopt(fd, SOL_SOCKET, SO_MEMINFO, info, &bytes) ? 0 : info[SK_MEMINFO_DROPS];
}

int datagrams_receive(struct datagrams_in *in, int fd, unsigned max)
{
	int n;
	for (unsigned i = 0; i < max; i++) {
		in->headers[i].msg_hdr.msg_namelen = sizeof in->names[i];
		in->headers[i].msg_hdr.msg_controllen = sizeof in->control[i];
	}
	do
		n = recvmmsg(fd, in->headers, max, MSG_DONTWAIT, NULL);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EAGAIN ? 0 : -errno;
	for (int i = 0; i < n; i++)
		read_message(in, (unsigned)i);
	return n;
}

/* ---- out ---- */

void datagrams_out_init(struct datagrams_out *out)
{
	out->fd = -1;
	out->is_ipv6 = false;
	out->segments = true;
	out->first = out->count = 0;
	out->used = 0;
	out->unsent = 0;
	out->err = 0;
}

/* May it go with what the same sender has left there just now? */
static bool may_join(const struct datagrams_out *out, const struct datagrams_entry *entry,
		     const struct datagrams_way *way, size_t len)
{
	bool is_same = entry->whose == way->whose && !memcmp(&entry->local, way->local, sizeof entry->local);
	return out->segments && is_same && !entry->is_full && len && len <= entry->segment &&
	       entry->segment <= SEGMENT_MAX && entry->count < SEGMENTS_MAX &&
	       entry->len + len <= MESSAGE_BYTES_MAX;
}

static void set_destination(struct datagrams_entry *entry, const struct datagrams_way *way)
{
	entry->to_bytes = 0;
	entry->local = *way->local;
	if (!way->peer)
		return;
	if (way->is_ipv6) {
		memcpy(&entry->to, way->peer, sizeof *way->peer);
		entry->to_bytes = sizeof *way->peer;
		return;
	}
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = way->peer->sin6_port };
	memcpy(&in.sin_addr, &way->peer->sin6_addr.s6_addr[12], sizeof in.sin_addr);
	memcpy(&entry->to, &in, sizeof in);
	entry->to_bytes = sizeof in;
}

static bool begin_entry(struct datagrams_out *out, const struct datagrams_way *way, size_t len)
{
	if (out->count == DATAGRAMS_MAX)
		return false;
	struct datagrams_entry *entry = &out->entries[out->count++];
	entry->whose = way->whose;
	set_destination(entry, way);
	entry->at = out->used;
	entry->len = entry->count = 0;
	entry->segment = (uint32_t)len;
	entry->is_full = false;
	return true;
}

bool datagrams_put(struct datagrams_out *out, const struct datagrams_way *way, const uint8_t *bytes,
		   size_t len)
{
	if (out->fd != way->fd) {
		if (datagrams_are_waiting(out))
			return false;
		out->fd = way->fd;
		out->is_ipv6 = way->is_ipv6;
	}
	struct datagrams_entry *last = out->count > out->first ? &out->entries[out->count - 1] : NULL;
	if (len > DATAGRAMS_OUT_BYTES - out->used)
		return false;
	if (!last || !may_join(out, last, way, len)) {
		if (!begin_entry(out, way, len))
			return false;
		last = &out->entries[out->count - 1];
	}
	memcpy(out->bytes + out->used, bytes, len);
	out->used += (uint32_t)len;
	last->len += (uint32_t)len;
	last->count++;
	last->is_full = len < last->segment || !len;
	return true;
}

static void add_control(struct msghdr *header, int level, int type, const void *data, size_t n)
{
	struct cmsghdr *part =
	    (struct cmsghdr *)(void *)((char *)header->msg_control + header->msg_controllen);
	part->cmsg_level = level;
	part->cmsg_type = type;
	part->cmsg_len = CMSG_LEN(n);
	memcpy(CMSG_DATA(part), data, n);
	header->msg_controllen += CMSG_SPACE(n);
}

static void add_local(const struct datagrams_out *out, const struct in6_addr *local, struct msghdr *header)
{
	if (IN6_IS_ADDR_UNSPECIFIED(local))
		return;
	if (out->is_ipv6) {
		struct in6_pktinfo info = { .ipi6_addr = *local };
		add_control(header, IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof info);
	} else {
		struct in_pktinfo info = { 0 };
		memcpy(&info.ipi_spec_dst, &local->s6_addr[12], sizeof info.ipi_spec_dst);
		add_control(header, IPPROTO_IP, IP_PKTINFO, &info, sizeof info);
	}
}

/* The message of an entry, or (`part` below its count) of one of its datagrams. */
static void make_message(struct datagrams_out *out, unsigned i, uint32_t part, struct iovec *bytes,
			 union datagrams_control *control, struct msghdr *header)
{
	struct datagrams_entry *entry = &out->entries[i];
	bool is_whole = part >= entry->count;
	uint32_t from = is_whole ? 0 : part * entry->segment, rest = entry->len - from;
	*bytes = (struct iovec){ out->bytes + entry->at + from,
				 is_whole || rest < entry->segment ? rest : entry->segment };
	*header = (struct msghdr){ .msg_name = entry->to_bytes ? &entry->to : NULL,
				   .msg_namelen = entry->to_bytes,
				   .msg_iov = bytes,
				   .msg_iovlen = 1,
				   .msg_control = control };
	add_local(out, &entry->local, header);
	if (is_whole && entry->count > 1) {
		uint16_t segment = (uint16_t)entry->segment;
		add_control(header, SOL_UDP, UDP_SEGMENT, &segment, sizeof segment);
	}
	if (!header->msg_controllen)
		header->msg_control = NULL;
}

static int datagrams_send_batch(struct datagrams_out *out)
{
	struct mmsghdr headers[DATAGRAMS_MAX];
	struct iovec parts[DATAGRAMS_MAX];
	union datagrams_control control[DATAGRAMS_MAX];
	unsigned n = out->count - out->first;
	for (unsigned i = 0; i < n; i++)
		make_message(out, out->first + i, UINT32_MAX, &parts[i], &control[i], &headers[i].msg_hdr);
	int sent;
	do
		sent = sendmmsg(out->fd, headers, n, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (sent < 0 && errno == EINTR);
	return sent < 0 ? -errno : sent;
}

/* The system does not take several at once, on this way at least: one by one, and what it takes none of is lost. */
static void send_one_by_one(struct datagrams_out *out, unsigned i)
{
	struct iovec part;
	union datagrams_control control;
	struct msghdr header;
	for (uint32_t k = 0; k < out->entries[i].count; k++) {
		make_message(out, i, k, &part, &control, &header);
		if (sendmsg(out->fd, &header, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
			out->unsent++;
			out->err = -errno;
		}
	}
}

/* The first of those that wait was refused. */
static void skip_refused(struct datagrams_out *out, int err)
{
	const struct datagrams_entry *entry = &out->entries[out->first];
	if (entry->count > 1 && (err == -EINVAL || err == -EIO || err == -EMSGSIZE)) {
		out->segments = out->segments && err != -EIO;
		send_one_by_one(out, out->first);
	} else {
		out->unsent += entry->count;
		out->err = err;
	}
	out->first++;
}

static void datagrams_empty(struct datagrams_out *out)
{
	out->first = out->count = 0;
	out->used = 0;
}

void datagrams_seal(struct datagrams_out *out)
{
	if (out->count > out->first)
		out->entries[out->count - 1].is_full = true;
}

void datagrams_drop(struct datagrams_out *out)
{
	for (unsigned i = out->first; i < out->count; i++)
		out->unsent += out->entries[i].count;
	datagrams_empty(out);
	out->fd = -1;
}

int datagrams_flush(struct datagrams_out *out)
{
	while (datagrams_are_waiting(out)) {
		int sent = datagrams_send_batch(out);
		if (sent == -ECONNREFUSED) { /* of an earlier one, told by a connected socket */
			out->err = sent;
			sent = datagrams_send_batch(out);
		}
		if (sent == -EAGAIN)
			return -EAGAIN;
		if (sent > 0)
			out->first += (unsigned)sent;
		else
			skip_refused(out, sent);
	}
	datagrams_empty(out);
	return 0;
}

/* ---- sockets ---- */

void datagrams_prepare(int fd, bool is_ipv6, bool is_any)
{
	int one = 1, queue = QUEUE_BYTES;
	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &queue, sizeof queue);
	setsockopt(fd, SOL_UDP, UDP_GRO, &one, sizeof one);
	setsockopt(fd, SOL_SOCKET, SO_RXQ_OVFL, &one, sizeof one);
	if (is_any && is_ipv6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, &one, sizeof one);
	else if (is_any)
		setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &one, sizeof one);
}

enum { STEER_GOLDEN = (int)0x9e3779b1u, STEER_SHIFT = 16 };

/* As the program of datagrams_steer() does it. */
unsigned datagrams_place(const struct sockaddr_in6 *peer, unsigned n)
{
	uint32_t end;
	memcpy(&end, peer->sin6_addr.s6_addr + sizeof peer->sin6_addr - sizeof end, sizeof end);
	uint32_t mixed = (ntohl(end) ^ ntohs(peer->sin6_port)) * (uint32_t)STEER_GOLDEN;
	return (mixed >> STEER_SHIFT) % n;
}

/*
 * Without a program the kernel spreads over all sockets that are bound, and a peer would change its socket when there
 * is one more. Offsets are those of the network header; X becomes the bytes of that.
 */
int datagrams_steer(int fd, unsigned n)
{
	enum { IPV4_SOURCE = 12, IPV6_SOURCE_END = 20, IPV6_HEAD_BYTES = 40 };
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_B | BPF_ABS, (uint32_t)SKF_NET_OFF),
		BPF_STMT(BPF_ALU | BPF_RSH | BPF_K, 4),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 6, 4, 0),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)SKF_NET_OFF + IPV4_SOURCE),
		BPF_STMT(BPF_ST, 0),
		BPF_STMT(BPF_LDX | BPF_B | BPF_MSH, (uint32_t)SKF_NET_OFF),
		BPF_JUMP(BPF_JMP | BPF_JA, 3, 0, 0),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)SKF_NET_OFF + IPV6_SOURCE_END),
		BPF_STMT(BPF_ST, 0),
		BPF_STMT(BPF_LDX | BPF_IMM, IPV6_HEAD_BYTES),
		BPF_STMT(BPF_LD | BPF_H | BPF_IND, (uint32_t)SKF_NET_OFF), /* the source port */
		BPF_STMT(BPF_LDX | BPF_MEM, 0),
		BPF_STMT(BPF_ALU | BPF_XOR | BPF_X, 0),
		BPF_STMT(BPF_ALU | BPF_MUL | BPF_K, (uint32_t)STEER_GOLDEN),
		BPF_STMT(BPF_ALU | BPF_RSH | BPF_K, STEER_SHIFT),
		BPF_STMT(BPF_ALU | BPF_MOD | BPF_K, n),
		BPF_STMT(BPF_RET | BPF_A, 0),
	};
	struct sock_fprog program = { sizeof code / sizeof *code, code };
	return setsockopt(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program, sizeof program) ? -errno : 0;
}
