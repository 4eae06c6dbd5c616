#include "restart/inherit.h"

#include "base/log.h"
#include "config/config.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>
#include <uv.h>

enum { FIRST_FD = 3, COUNT_MAX = 4096 };

/* ---- the environment ---- */

/* 0 when they are not for us: variables outlive the process they were meant for. */
static unsigned count_fds(void)
{
	const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS");
	if (!pid || !count || strtol(pid, NULL, 10) != getpid())
		return 0;
	long n = strtol(count, NULL, 10);
	return n < 0 || n > COUNT_MAX ? 0 : (unsigned)n;
}

static void read_socket(struct inherited *socket, int fd)
{
	int flags = fcntl(fd, F_GETFL);
	socket->fd = fd;
	socket->address_bytes = sizeof socket->address;
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	if (flags >= 0)
		fcntl(fd, F_SETFL, flags | O_NONBLOCK);
	if (getsockname(fd, (struct sockaddr *)&socket->address, &socket->address_bytes))
		socket->address.ss_family = AF_UNSPEC;
}

/* "a:b:c", one a socket. */
static void read_names(struct inheritance *inheritance, const char *names)
{
	for (unsigned i = 0; names && i < inheritance->count; i++) {
		size_t length = strcspn(names, ":");
		snprintf(inheritance->sockets[i].name, INHERITED_NAME_BYTES, "%.*s", (int)length, names);
		names = names[length] ? names + length + 1 : NULL;
	}
}

int inheritance_open(struct inheritance *inheritance)
{
	*inheritance = (struct inheritance){ .count = count_fds() };
	inheritance->sockets = calloc(inheritance->count + 1, sizeof *inheritance->sockets);
	if (!inheritance->sockets)
		return UV_ENOMEM;
	for (unsigned i = 0; i < inheritance->count; i++)
		read_socket(&inheritance->sockets[i], FIRST_FD + (int)i);
	read_names(inheritance, getenv("LISTEN_FDNAMES"));
	unsetenv("LISTEN_PID");
	unsetenv("LISTEN_FDS");
	unsetenv("LISTEN_FDNAMES");
	return 0;
}

/* ---- whose is it? ---- */

static bool is_listening(int fd)
{
	int yes = 0;
	socklen_t size = sizeof yes;
	return !getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &yes, &size) && yes;
}

static uint16_t port_of(const struct sockaddr_storage *address)
{
	if (address->ss_family == AF_INET)
		return ntohs(((const struct sockaddr_in *)(const void *)address)->sin_port);
	return ntohs(((const struct sockaddr_in6 *)(const void *)address)->sin6_port);
}

static bool is_same_host(const struct sockaddr_storage *a, const struct sockaddr *b)
{
	if (a->ss_family != b->sa_family)
		return false;
	if (b->sa_family == AF_INET)
		return ((const struct sockaddr_in *)(const void *)a)->sin_addr.s_addr ==
		       ((const struct sockaddr_in *)(const void *)b)->sin_addr.s_addr;
	return b->sa_family == AF_INET6 &&
	       !memcmp(&((const struct sockaddr_in6 *)(const void *)a)->sin6_addr,
		       &((const struct sockaddr_in6 *)(const void *)b)->sin6_addr, sizeof(struct in6_addr));
}

static struct inherited *find_host(struct inheritance *inheritance, const struct sockaddr *host,
				   uint16_t port)
{
	for (unsigned i = 0; i < inheritance->count; i++) {
		struct inherited *socket = &inheritance->sockets[i];
		if (socket->fd >= 0 && is_same_host(&socket->address, host) &&
		    (!port || port == port_of(&socket->address)) && is_listening(socket->fd))
			return socket;
	}
	return NULL;
}

/* A name may stand for several addresses, and no name for all of both kinds, as when they are bound. */
static struct inherited *find_tcp(struct inheritance *inheritance, const struct listener_config *config)
{
	const char *hosts[] = { *config->host ? config->host : "::", *config->host ? NULL : "0.0.0.0" };
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE }, *list;
	struct inherited *found = NULL;
	for (int i = 0; i < 2 && hosts[i] && !found; i++) {
		if (getaddrinfo(hosts[i], NULL, &hints, &list))
			continue;
		for (struct addrinfo *info = list; info && !found; info = info->ai_next)
			found = find_host(inheritance, info->ai_addr, config->port);
		freeaddrinfo(list);
	}
	return found;
}

/* The path a Unix socket is bound to, "" if there is none. */
static void path_of(const struct inherited *socket, char path[sizeof(struct sockaddr_un)])
{
	size_t header = offsetof(struct sockaddr_un, sun_path), bytes = socket->address_bytes;
	*path = '\0';
	if (socket->address.ss_family != AF_UNIX || bytes <= header || bytes > sizeof(struct sockaddr_un))
		return;
	memcpy(path, (const char *)&socket->address + header, bytes - header);
	path[bytes - header] = '\0';
}

static struct inherited *find_unix(struct inheritance *inheritance, const struct listener_config *config)
{
	char path[sizeof(struct sockaddr_un)];
	for (unsigned i = 0; i < inheritance->count; i++) {
		struct inherited *socket = &inheritance->sockets[i];
		path_of(socket, path);
		if (socket->fd >= 0 && !strcmp(path, config->path) && is_listening(socket->fd))
			return socket;
	}
	return NULL;
}

struct inherited *inheritance_find(struct inheritance *inheritance, const struct listener_config *config)
{
	if (!inheritance->count)
		return NULL;
	return config->kind == LISTENER_TCP ? find_tcp(inheritance, config) : find_unix(inheritance, config);
}

/* ---- what is left ---- */

static void show(const struct inherited *socket, char *text, size_t size)
{
	char host[INET6_ADDRSTRLEN] = "", path[sizeof(struct sockaddr_un)];
	const void *address = &socket->address;
	path_of(socket, path);
	if (socket->address.ss_family == AF_INET)
		inet_ntop(AF_INET, &((const struct sockaddr_in *)address)->sin_addr, host, sizeof host);
	if (socket->address.ss_family == AF_INET6)
		inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)address)->sin6_addr, host, sizeof host);
	if (*host)
		snprintf(text, size, strchr(host, ':') ? "[%s]:%u" : "%s:%u", host,
			 port_of(&socket->address));
	else
		snprintf(text, size, "%s", *path ? path : "no address");
}

static void discard(struct inherited *socket, bool for_good)
{
	char text[160], path[sizeof(struct sockaddr_un)];
	show(socket, text, sizeof text);
	path_of(socket, path);
	log_write(LOG_WARN, "an inherited socket is closed: no listener has its address",
		  F_TEXT("address", text), F_TEXT("name", socket->name));
	if (for_good && *path && !strcmp(socket->name, INHERITED_OWN))
		unlink(path);
	close(socket->fd);
}

void inheritance_close(struct inheritance *inheritance, bool for_good)
{
	for (unsigned i = 0; i < inheritance->count; i++)
		if (inheritance->sockets[i].fd >= 0)
			discard(&inheritance->sockets[i], for_good);
	free(inheritance->sockets);
	*inheritance = (struct inheritance){ 0 };
}
