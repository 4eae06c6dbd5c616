#include "server/listener.h"

#include "net/address.h"
#include "server/datagrams.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static int listener_explain(char *why, size_t size, const char *address, const char *what)
{
	snprintf(why, size, "%s: %s", address, what);
	return -1;
}

/* ---- Unix sockets ---- */

/* Does a server answer at this path? */
static bool is_live(const struct sockaddr_un *address)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return true; /* cannot tell: do no harm */
	int failed = connect(fd, (const struct sockaddr *)address, sizeof *address);
	bool refused = failed && errno == ECONNREFUSED;
	close(fd);
	return !refused;
}

static int bind_unix_over_stale(struct listener *listener, const struct sockaddr_un *address, char *why,
				size_t size)
{
	const char *shown = listener->config->address;
	struct stat st;
	if (lstat(address->sun_path, &st))
		return listener_explain(why, size, shown, strerror(errno));
	if (!S_ISSOCK(st.st_mode))
		return listener_explain(why, size, shown, "exists and is not a socket; it is left alone");
	if (is_live(address))
		return listener_explain(why, size, shown, "in use: a running server answers there");
	if (unlink(address->sun_path) ||
	    bind(listener->fd, (const struct sockaddr *)address, sizeof *address))
		return listener_explain(why, size, shown, strerror(errno));
	return 0;
}

static void remember_file(struct listener *listener, const struct socket_file *file)
{
	listener->file = *file;
	snprintf(listener->address, sizeof listener->address, "unix://%s", listener->config->path);
}

static int bind_unix(struct listener *listener, char *why, size_t size)
{
	const struct listener_config *config = listener->config;
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	if (strlen(config->path) >= sizeof address.sun_path)
		return listener_explain(why, size, config->address,
					"the path is too long for a Unix socket (107 bytes)");
	memcpy(address.sun_path, config->path, strlen(config->path) + 1);
	listener->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (listener->fd < 0)
		return listener_explain(why, size, config->address, strerror(errno));
	if (bind(listener->fd, (struct sockaddr *)&address, sizeof address)) {
		if (errno != EADDRINUSE)
			return listener_explain(why, size, config->address, strerror(errno));
		if (bind_unix_over_stale(listener, &address, why, size))
			return -1;
	}
	if (config->mode >= 0 && chmod(config->path, (mode_t)config->mode))
		return listener_explain(why, size, config->address, strerror(errno));
	struct socket_file file = socket_file_at(config->path);
	remember_file(listener, &file);
	return 0;
}

/* ---- TCP ---- */

/* On Linux an accepted socket inherits these from the listening one: no system calls per client. */
static void set_tcp_options(int fd, const struct listener_config *config)
{
	int nodelay = config->nodelay, keepalive = config->keepalive_ms != 0;
	int seconds = (int)((config->keepalive_ms + 999) / 1000);
	/* Off is said, too: a socket that was inherited may have it on. */
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &nodelay, sizeof nodelay);
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &keepalive, sizeof keepalive);
	if (!keepalive)
		return;
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &seconds, sizeof seconds);
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &seconds, sizeof seconds);
}

static int open_tcp(struct listener *listener, const struct sockaddr_storage *address, socklen_t bytes)
{
	int one = 1, zero = 0;
	listener->fd = socket(address->ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (listener->fd < 0)
		return -errno;
	setsockopt(listener->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (listener->config->reuse_port)
		setsockopt(listener->fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
	if (address->ss_family == AF_INET6)
		setsockopt(listener->fd, IPPROTO_IPV6, IPV6_V6ONLY, *listener->config->host ? &one : &zero,
			   sizeof one);
	set_tcp_options(listener->fd, listener->config);
	if (!bind(listener->fd, (const struct sockaddr *)address, bytes))
		return 0;
	int err = -errno;
	close(listener->fd);
	listener->fd = -1;
	return err;
}

static int open_host(struct listener *listener, const struct addrinfo *info)
{
	struct sockaddr_storage address;
	socklen_t bytes = address_plain(info->ai_addr, &address);
	if (listener->config->kind == LISTENER_UDP)
		return datagrams_open(listener, (const struct sockaddr *)&address, bytes);
	return open_tcp(listener, &address, bytes);
}

static const char *scheme_of(const struct listener *listener)
{
	if (listener->config->kind == LISTENER_UDP)
		return "udp";
	return listener->config->tls ? "tls" : "tcp";
}

static int remember_address(struct listener *listener)
{
	struct sockaddr_storage got;
	socklen_t len = sizeof got;
	char text[ADDRESS_TEXT_BYTES];
	if (getsockname(listener->fd, (struct sockaddr *)&got, &len))
		return -errno;
	snprintf(listener->address, sizeof listener->address, "%s://%s", scheme_of(listener),
		 address_text((struct sockaddr *)&got, text, sizeof text));
	return 0;
}

/* Why getaddrinfo() does not take a host. It says nothing of zones: "Name or service not known". */
static const char *explain_host(const char *host, int failed)
{
	char address[INET6_ADDRSTRLEN];
	const char *zone = strchr(host, '%');
	struct in6_addr in6;
	if (failed != EAI_NONAME || !zone || (size_t)(zone - host) >= sizeof address)
		return gai_strerror(failed);
	memcpy(address, host, (size_t)(zone - host));
	address[zone - host] = '\0';
	if (inet_pton(AF_INET6, address, &in6) != 1)
		return gai_strerror(failed);
	return if_nametoindex(zone + 1) ? "only a link-local address (fe80::) has a network interface"
					: "there is no network interface of that name";
}

/* A name may stand for several addresses; the first that can be bound is taken, as Go does it. */
static int bind_host(struct listener *listener, char *why, size_t size)
{
	const struct listener_config *config = listener->config;
	const char *hosts[] = { *config->host ? config->host : "::", *config->host ? NULL : "0.0.0.0" };
	char port[8];
	int err = UV_EADDRNOTAVAIL;
	snprintf(port, sizeof port, "%u", config->port);
	for (int i = 0; i < 2 && hosts[i] && listener->fd < 0; i++) {
		struct addrinfo hints = { .ai_socktype = SOCK_STREAM,
					  .ai_flags = AI_PASSIVE | AI_NUMERICSERV },
				*list;
		int failed = getaddrinfo(hosts[i], port, &hints, &list);
		if (failed)
			return listener_explain(why, size, config->address, explain_host(hosts[i], failed));
		for (struct addrinfo *info = list; info && listener->fd < 0; info = info->ai_next)
			err = open_host(listener, info);
		freeaddrinfo(list);
	}
	/* Nobody could find a server on a port that it cannot name. */
	if (listener->fd >= 0)
		err = remember_address(listener);
	if (err)
		return listener_explain(why, size, config->address, strerror(-err));
	return 0;
}

static void listener_reset(struct listener *listener, const struct listener_config *config,
			   const char *origin)
{
	memset(listener, 0, sizeof *listener);
	listener->config = config;
	listener->fd = -1;
	snprintf(listener->origin, sizeof listener->origin, "%s", origin);
}

int listener_bind(struct listener *listener, const struct listener_config *config, char *why, size_t size)
{
	listener_reset(listener, config, INHERITED_OWN);
	int failed =
	    config->kind == LISTENER_UNIX ? bind_unix(listener, why, size) : bind_host(listener, why, size);
	if (failed && listener->sockets) {
		datagrams_close(listener);
	} else if (failed && listener->fd >= 0) {
		close(listener->fd);
		listener->fd = -1;
	}
	return failed;
}

/* Only of what is taken: whoever else shares it has to bear that. */
static int unblock(int fd)
{
	int flags = fcntl(fd, F_GETFL);
	return flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) ? -errno : 0;
}

/* Whoever inherits wants its own settings, and the backlog's size when it listens again, which drops nobody. */
int listener_adopt(struct listener *listener, const struct listener_config *config,
		   struct inherited *inherited, char *why, size_t size)
{
	listener_reset(listener, config, inherited->name);
	listener->fd = inherited->fd;
	listener->shared = true;
	inherited->fd = -1;
	int err = unblock(listener->fd);
	if (err)
		return listener_explain(why, size, config->address, strerror(-err));
	if (config->kind == LISTENER_UNIX) {
		bool own = !strcmp(listener->origin, INHERITED_OWN);
		remember_file(listener, &inherited->file);
		if (own && config->mode >= 0 && !listener_is_lost(listener) &&
		    chmod(config->path, (mode_t)config->mode))
			return listener_explain(why, size, config->address, strerror(errno));
		return 0;
	}
	if (config->kind == LISTENER_TCP)
		set_tcp_options(listener->fd, config);
	err = remember_address(listener);
	return err ? listener_explain(why, size, config->address, strerror(-err)) : 0;
}

void listener_own(struct listener *listener)
{
	listener->shared = strcmp(listener->origin, INHERITED_OWN);
}

void listener_share(struct listener *listener)
{
	listener->shared = true;
}

unsigned listener_bequeath(const struct listener *listener, struct bequest *to)
{
	for (unsigned i = 0; i < listener->socket_count; i++)
		to[i] = (struct bequest){ .fd = listener->sockets[i], .name = listener->origin };
	if (!listener->sockets)
		*to =
		    (struct bequest){ .fd = listener->fd, .name = listener->origin, .file = listener->file };
	return listener_count_bequests(listener);
}

int listener_listen(struct listener *listener, char *why, size_t size)
{
	if (listener->config->kind != LISTENER_UDP && listen(listener->fd, listener->config->backlog))
		return listener_explain(why, size, listener->config->address, strerror(errno));
	return 0;
}

void listener_configure(struct listener *listener, const struct listener_config *config)
{
	listener->config = config;
	if (config->kind == LISTENER_UDP)
		return;
	if (config->kind == LISTENER_TCP) {
		set_tcp_options(listener->fd, config);
		memcpy(listener->address, scheme_of(listener), strlen(scheme_of(listener)));
	}
	listen(listener->fd, config->backlog); /* again: only the backlog's size changes */
}

void listener_close(struct listener *listener)
{
	if (listener->fd < 0)
		return;
	if (listener->sockets) {
		datagrams_close(listener);
		return;
	}
	close(listener->fd);
	listener->fd = -1;
	if (!listener->shared && listener->config->kind == LISTENER_UNIX)
		socket_file_remove(&listener->file, listener->config->path);
}

/* ---- a file that is gone ---- */

bool listener_is_lost(const struct listener *listener)
{
	return listener->fd >= 0 && listener->config->kind == LISTENER_UNIX &&
	       !socket_file_is_at(&listener->file, listener->config->path);
}

int listener_renew(const struct listener *listener, struct listener *fresh, char *why, size_t size)
{
	if (strcmp(listener->origin, INHERITED_OWN) != 0)
		return listener_explain(
		    why, size, listener->config->address,
		    "whoever started this server has made the socket, and is to make it anew");
	if (listener_bind(fresh, listener->config, why, size))
		return -1;
	int failed = listener_listen(fresh, why, size);
	if (failed)
		listener_close(fresh);
	return failed;
}

void listener_take(struct listener *listener, const struct listener *fresh)
{
	close(listener->fd);
	listener->fd = fresh->fd;
	listener->file = fresh->file;
	listener->shared = false;
}

/* ---- clients ---- */

int listener_accept(struct listener *listener, struct sockaddr_in6 *peer)
{
	struct sockaddr_storage from = { 0 };
	socklen_t len = sizeof from;
	int fd = accept4(listener->fd, (struct sockaddr *)&from, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (fd < 0)
		return -errno;
	address_map(&from, peer);
	return fd;
}
