#include "restart/inherit.h"

#include "base/address.h"
#include "base/log.h"
#include "config/config.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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
	socklen_t bytes = sizeof socket->address;
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	if (flags >= 0)
		fcntl(fd, F_SETFL, flags | O_NONBLOCK);
	if (getsockname(fd, (struct sockaddr *)&socket->address, &bytes))
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

static struct inherited *find_host(struct inheritance *inheritance, const struct sockaddr *host,
				   uint16_t port)
{
	struct sockaddr_storage wanted;
	address_plain(host, &wanted);
	for (unsigned i = 0; i < inheritance->count; i++) {
		struct inherited *socket = &inheritance->sockets[i];
		if (socket->fd >= 0 && address_same_host(&socket->address, &wanted) &&
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

static struct inherited *find_unix(struct inheritance *inheritance, const struct listener_config *config)
{
	char path[ADDRESS_PATH_BYTES];
	for (unsigned i = 0; i < inheritance->count; i++) {
		struct inherited *socket = &inheritance->sockets[i];
		if (socket->fd >= 0 && !strcmp(address_path(&socket->address, path), config->path) &&
		    is_listening(socket->fd))
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

static void discard(struct inherited *socket, bool for_good)
{
	char text[ADDRESS_TEXT_BYTES], path[ADDRESS_PATH_BYTES];
	const char *shown = address_path(&socket->address, path);
	if (!*path)
		shown = address_text((const struct sockaddr *)&socket->address, text, sizeof text);
	log_write(LOG_WARN, "an inherited socket is closed: no listener has its address",
		  F_TEXT("address", socket->address.ss_family == AF_UNSPEC ? "no address" : shown),
		  F_TEXT("name", socket->name));
	if (for_good && *path && *path != '@' && !strcmp(socket->name, INHERITED_OWN))
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
