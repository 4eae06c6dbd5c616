#include "net/dns.h"

#include <ares.h>
#include <errno.h>
#include <limits.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
	READS_PER_EVENT = 32, /* then other descriptors have their turn */
	HEADER_BYTES = 12     /* no message is shorter */
};

struct dns_socket {
	struct polled polled; /* first: it leads back here */
	struct dns *dns;
	struct dns_socket *next;
	bool is_stream;
	bool may_have_more; /* the last read was not told that there is nothing */
};

struct dns {
	ares_channel channel;
	struct poller *poller;
	struct dns_socket *sockets;
	unsigned pending;
};

/* ---- c-ares' sockets ---- */

/*
 * c-ares reads one datagram at a time from sockets that it has not made, and no edge tells of a second. `events`: 0
 * where poller_again() asked for it.
 */
static void on_dns_ready(struct polled *polled, uint32_t events)
{
	struct dns_socket *found = (struct dns_socket *)(void *)polled;
	for (int i = 0; i < READS_PER_EVENT && polled->fd >= 0; i++) {
		found->may_have_more = false;
		ares_process_fd(found->dns->channel, polled->fd,
				events & EPOLLOUT ? polled->fd : ARES_SOCKET_BAD);
		if (!found->may_have_more)
			return;
	}
	if (polled->fd >= 0)
		poller_again(polled);
}

static void on_dns_socket_closed(struct polled *polled)
{
	free(polled);
}

static const struct polled_ops DNS_SOCKET = { .ready = on_dns_ready, .closed = on_dns_socket_closed };

/* It is in the epoll set from here on: what c-ares wants to know of it later, the kernel has no reason to refuse. */
static ares_socket_t open_dns_socket(int family, int type, int protocol, void *data)
{
	struct dns *dns = data;
	struct dns_socket *opened = calloc(1, sizeof *opened);
	if (!opened)
		return ARES_SOCKET_BAD;
	int fd = socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol);
	if (fd < 0) {
		free(opened);
		return ARES_SOCKET_BAD;
	}
	polled_init(&opened->polled, dns->poller, fd, &DNS_SOCKET);
	if (poller_watch(&opened->polled, 0)) {
		poller_close(&opened->polled);
		return ARES_SOCKET_BAD;
	}
	opened->dns = dns;
	opened->is_stream = type == SOCK_STREAM;
	opened->next = dns->sockets;
	dns->sockets = opened;
	return fd;
}

/* Where in the list it is. c-ares closes and names only those that it has opened. */
static struct dns_socket **dns_socket_at(struct dns *dns, ares_socket_t fd)
{
	struct dns_socket **at = &dns->sockets;
	while ((*at)->polled.fd != fd)
		at = &(*at)->next;
	return at;
}

static int close_dns_socket(ares_socket_t fd, void *data)
{
	struct dns_socket **at = dns_socket_at(data, fd), *found = *at;
	*at = found->next;
	poller_close(&found->polled);
	return 0;
}

static int connect_dns_socket(ares_socket_t fd, const struct sockaddr *to, ares_socklen_t bytes, void *data)
{
	(void)data;
	return connect(fd, to, bytes);
}

/* A datagram that is no message is nothing: c-ares takes an empty one for the end of the stream. */
static ares_ssize_t read_dns_socket(ares_socket_t fd, void *to, size_t n, int flags, struct sockaddr *from,
				    ares_socklen_t *from_bytes, void *data)
{
	struct dns_socket *found = *dns_socket_at(data, fd);
	socklen_t room = from_bytes ? *from_bytes : 0;
	ssize_t got;
	do {
		if (from_bytes)
			*from_bytes = room;
		got = recvfrom(fd, to, n, flags, from, from_bytes);
	} while ((got < 0 && errno == EINTR) || (got >= 0 && got < HEADER_BYTES && !found->is_stream));
	found->may_have_more = got > 0;
	return got;
}

/* Not writev(): that raises SIGPIPE. */
static ares_ssize_t write_dns_socket(ares_socket_t fd, const struct iovec *parts, int n, void *data)
{
	struct msghdr message = { .msg_iov = (struct iovec *)parts, .msg_iovlen = (size_t)n };
	ssize_t put;
	(void)data;
	do
		put = sendmsg(fd, &message, MSG_NOSIGNAL);
	while (put < 0 && errno == EINTR);
	return put;
}

static const struct ares_socket_functions SOCKET_FUNCTIONS = {
	.asocket = open_dns_socket,
	.aclose = close_dns_socket,
	.aconnect = connect_dns_socket,
	.arecvfrom = read_dns_socket,
	.asendv = write_dns_socket,
};

static void on_dns_interest(void *data, ares_socket_t fd, int reads, int writes)
{
	if (reads || writes) /* else it is about to be closed */
		poller_watch(&(*dns_socket_at(data, fd))->polled,
			     (reads ? EPOLLIN : 0u) | (writes ? EPOLLOUT : 0u));
}

/* ---- questions ---- */

static int dns_error(int status)
{
	switch (status) {
	case ARES_SUCCESS:
		return 0;
	case ARES_ENOTFOUND:
	case ARES_ENONAME:
		return UV_EAI_NONAME;
	case ARES_ENODATA:
		return UV_EAI_NODATA;
	case ARES_ETIMEOUT:
		return UV_ETIMEDOUT;
	case ARES_ENOMEM:
		return UV_ENOMEM;
	case ARES_EBADNAME:
		return UV_EINVAL;
	case ARES_ECANCELLED:
	case ARES_EDESTRUCTION:
		return UV_ECANCELED;
	default:
		return UV_EAI_AGAIN;
	}
}

static uint32_t shorter_ttl(uint32_t ttl_s, int other)
{
	return other >= 0 && (uint32_t)other < ttl_s ? (uint32_t)other : ttl_s;
}

/* An answer is as good as its shortest-lived part, the aliases on the way included. */
static uint32_t collect(const struct ares_addrinfo *info, int family, struct addresses *addresses)
{
	uint32_t ttl_s = INT32_MAX;
	for (const struct ares_addrinfo_cname *alias = info->cnames; alias; alias = alias->next)
		ttl_s = shorter_ttl(ttl_s, alias->ttl);
	for (const struct ares_addrinfo_node *node = info->nodes; node; node = node->ai_next) {
		union address address = { 0 };
		if (node->ai_family != family)
			continue;
		memcpy(&address, node->ai_addr, family == AF_INET ? sizeof address.in : sizeof address.in6);
		addresses_add(addresses, &address);
		ttl_s = shorter_ttl(ttl_s, node->ai_ttl);
	}
	return ttl_s;
}

static void on_dns_answer(void *data, int status, int timeouts, struct ares_addrinfo *info)
{
	struct dns_question *question = data;
	struct addresses addresses = { .count = 0 };
	uint32_t ttl_s = 0;
	(void)timeouts;
	question->dns->pending--;
	if (info)
		ttl_s = collect(info, question->family, &addresses);
	ares_freeaddrinfo(info);
	if (status == ARES_SUCCESS && !addresses.count)
		status = ARES_ENODATA;
	question->answered(question, dns_error(status), &addresses, ttl_s);
}

void dns_ask(struct dns *dns, const char *name, int family, struct dns_question *question)
{
	/* Sorting would open and connect a socket for each address of each answer; the port is nobody's yet. */
	const struct ares_addrinfo_hints hints = { .ai_flags = ARES_AI_NOSORT, .ai_family = family };
	question->dns = dns;
	question->family = family;
	dns->pending++;
	ares_getaddrinfo(dns->channel, name, NULL, &hints, on_dns_answer, question);
}

unsigned dns_pending(const struct dns *dns)
{
	return dns->pending;
}

/* Rounded up, or it would be asked again and again within the last millisecond. */
int dns_timeout_ms(struct dns *dns)
{
	struct timeval left;
	if (!ares_timeout(dns->channel, NULL, &left))
		return -1;
	return left.tv_sec < INT_MAX / 1000 - 1 ? (int)(left.tv_sec * 1000 + left.tv_usec / 1000 + 1)
						: INT_MAX;
}

void dns_expire(struct dns *dns)
{
	ares_process_fd(dns->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
}

/* ---- the whole ---- */

static int library_status;

static void init_ares(void)
{
	library_status = ares_library_init(ARES_LIB_INIT_ALL);
}

/* The hosts file is the resolver's: c-ares would ask a server for the family that it does not have. */
static int open_channel(struct dns *dns, const struct dns_settings *settings)
{
	struct ares_options options = {
		.flags = ARES_FLAG_NOALIASES, /* $HOSTALIASES is a file that every question would read */
		.timeout = settings->timeout_ms,
		.tries = settings->tries,
		.udp_port = settings->port,
		.tcp_port = settings->port,
		.lookups = (char[]){ "b" },
		.resolvconf_path = (char *)settings->resolv_path,
		.sock_state_cb = on_dns_interest,
		.sock_state_cb_data = dns,
	};
	int wanted = ARES_OPT_FLAGS | ARES_OPT_LOOKUPS | ARES_OPT_SOCK_STATE_CB |
		     (settings->timeout_ms ? ARES_OPT_TIMEOUTMS : 0) |
		     (settings->tries ? ARES_OPT_TRIES : 0) |
		     (settings->port ? ARES_OPT_UDP_PORT | ARES_OPT_TCP_PORT : 0) |
		     (settings->resolv_path ? ARES_OPT_RESOLVCONF : 0);
	return dns_error(ares_init_options(&dns->channel, &options, wanted));
}

int dns_open(struct dns **dns, struct poller *poller, const struct dns_settings *settings)
{
	static uv_once_t once = UV_ONCE_INIT;
	uv_once(&once, init_ares);
	if (library_status != ARES_SUCCESS)
		return dns_error(library_status);
	struct dns *opened = calloc(1, sizeof *opened);
	if (!opened)
		return UV_ENOMEM;
	opened->poller = poller;
	int err = open_channel(opened, settings);
	if (err)
		goto free_opened;
	ares_set_socket_functions(opened->channel, &SOCKET_FUNCTIONS, opened);
	if (settings->servers)
		err = dns_error(ares_set_servers_ports_csv(opened->channel, settings->servers));
	if (err)
		goto destroy;
	*dns = opened;
	return 0;
destroy:
	ares_destroy(opened->channel);
free_opened:
	free(opened);
	return err;
}

void dns_close(struct dns *dns)
{
	ares_destroy(dns->channel);
	free(dns);
}
