#include "restart/inherit.h"

#include "base/log.h"
#include "config/config.h"
#include "net/address.h"
#include "restart/variables.h"

#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>

/* ---- what is it? ---- */

static int option_of(int fd, int option)
{
	int value = 0;
	socklen_t size = sizeof value;
	return getsockopt(fd, SOL_SOCKET, option, &value, &size) ? 0 : value;
}

/* Another protocol may have TCP's addresses: SCTP does. */
static bool speaks_streams(const struct inherited *socket)
{
	int protocol = option_of(socket->fd, SO_PROTOCOL);
	if (option_of(socket->fd, SO_TYPE) != SOCK_STREAM)
		return false;
	return socket->address.ss_family == AF_UNIX || protocol == IPPROTO_TCP || protocol == IPPROTO_MPTCP;
}

/* Bound, and for all peers. */
static bool receives_datagrams(const struct inherited *socket)
{
	struct sockaddr_storage peer;
	socklen_t size = sizeof peer;
	return option_of(socket->fd, SO_TYPE) == SOCK_DGRAM &&
	       option_of(socket->fd, SO_PROTOCOL) == IPPROTO_UDP &&
	       getpeername(socket->fd, (struct sockaddr *)&peer, &size);
}

static const char *kind_of_socket(int fd)
{
	struct sockaddr_storage peer;
	socklen_t size = sizeof peer;
	if (option_of(fd, SO_TYPE) == SOCK_DGRAM)
		return "a datagram socket";
	if (option_of(fd, SO_TYPE) == SOCK_SEQPACKET)
		return "a socket of packets";
	if (option_of(fd, SO_ACCEPTCONN))
		return "a socket of another protocol";
	return getpeername(fd, (struct sockaddr *)&peer, &size) ? "a socket that does not listen"
								: "a connection";
}

static const char *inherit_kind_of(int fd)
{
	struct stat st;
	if (fstat(fd, &st))
		return "unknown";
	switch (st.st_mode & S_IFMT) {
	case S_IFREG:
		return "a file";
	case S_IFDIR:
		return "a folder";
	case S_IFIFO:
		return "a pipe";
	case S_IFCHR:
	case S_IFBLK:
		return "a device";
	case S_IFSOCK:
		return kind_of_socket(fd);
	default:
		return "of another kind"; /* an eventfd, an epoll set, … */
	}
}

/* ---- taking them ---- */

/* "a:b:c", one a descriptor, those that are left out among them. */
static void read_names(struct inheritance *inheritance, const char *names)
{
	for (unsigned i = 0; names && i < inheritance->count; i++) {
		size_t length = strcspn(names, ":");
		snprintf(inheritance->sockets[i].name, INHERITED_NAME_BYTES, "%.*s", (int)length, names);
		names = names[length] ? names + length + 1 : NULL;
	}
}

/* "1.2": device and inode. */
static bool parse_file(const char *text, struct socket_file *file)
{
	char *end;
	file->device = strtoull(text, &end, 10);
	if (end == text || *end != '.')
		return false;
	text = end + 1;
	file->inode = strtoull(text, &end, 10);
	return end != text;
}

/* One a descriptor, as names are. A successor cannot ask the path: something else may be there by now. */
static void read_files(struct inheritance *inheritance, const char *files)
{
	char path[ADDRESS_PATH_BYTES];
	for (unsigned i = 0; i < inheritance->count; i++) {
		struct inherited *socket = &inheritance->sockets[i];
		bool is_told = files && parse_file(files, &socket->file);
		if (!is_told && socket->fd >= 0)
			socket->file = socket_file_at(address_path(&socket->address, path));
		files = files ? strchr(files, ':') : NULL;
		files = files ? files + 1 : NULL;
	}
}

/* Its descriptor stays -1 where there is nobody to accept from. What others share of it is left as it is. */
static void inherit_look_at(struct inherited *socket, int fd)
{
	socket->fd = fd;
	socklen_t bytes = sizeof socket->address;
	bool is_bound = !getsockname(fd, (struct sockaddr *)&socket->address, &bytes);
	socket->is_udp = is_bound && receives_datagrams(socket);
	if (socket->is_udp || (is_bound && option_of(fd, SO_ACCEPTCONN) && speaks_streams(socket)))
		return;
	log_write(LOG_WARN, "an inherited descriptor is closed: it is no listening stream socket",
		  F_INT("descriptor", fd), F_TEXT("kind", inherit_kind_of(fd)), F_TEXT("name", socket->name));
	close(fd);
	socket->fd = -1;
}

enum { ABSENT_TOLD = 4 }; /* a wrong number may promise thousands */

static void tell_absent(const struct inherited *socket, int fd, unsigned before)
{
	if (before < ABSENT_TOLD)
		log_write(LOG_WARN, "an inherited descriptor is not open: it is left out",
			  F_INT("descriptor", fd), F_TEXT("name", socket->name));
}

static void look_at_all(struct inheritance *inheritance, const struct variables *given)
{
	unsigned absent = 0;
	for (unsigned i = 0; i < inheritance->count; i++) {
		struct inherited *socket = &inheritance->sockets[i];
		int fd = VARIABLES_FIRST_FD + (int)i;
		socket->fd = -1;
		if (given->is_open[i] && !strcmp(socket->name, INHERITED_GATE))
			inheritance->gate = fd;
		else if (given->is_open[i] && !strcmp(socket->name, INHERITED_SNAPSHOTS))
			inheritance->snapshots = fd;
		else if (given->is_open[i])
			inherit_look_at(socket, fd);
		else
			tell_absent(socket, fd, absent++);
	}
	if (absent > ABSENT_TOLD)
		log_write(LOG_WARN, "more inherited descriptors are not open: they are left out",
			  F_INT("count", absent - ABSENT_TOLD), F_INT("promised", inheritance->count));
}

int inheritance_open(struct inheritance *inheritance)
{
	const struct variables *given = variables_taken();
	*inheritance = (struct inheritance){ .count = given->fd_count, .gate = -1, .snapshots = -1 };
	inheritance->sockets = calloc(inheritance->count + 1, sizeof *inheritance->sockets);
	if (!inheritance->sockets) {
		inheritance->count = 0;
		return UV_ENOMEM;
	}
	read_names(inheritance, given->fd_names);
	look_at_all(inheritance, given);
	read_files(inheritance, given->fd_files);
	return 0;
}

/* ---- whose is it? ---- */

static uint16_t port_of(const struct sockaddr_storage *address)
{
	if (address->ss_family == AF_INET)
		return ntohs(((const struct sockaddr_in *)(const void *)address)->sin_port);
	return ntohs(((const struct sockaddr_in6 *)(const void *)address)->sin6_port);
}

static struct inherited *find_host(struct inheritance *inheritance, const struct sockaddr *host,
				   uint16_t port, bool is_udp)
{
	struct sockaddr_storage wanted;
	address_plain(host, &wanted);
	for (unsigned i = 0; i < inheritance->count; i++) {
		struct inherited *socket = &inheritance->sockets[i];
		if (socket->fd >= 0 && socket->is_udp == is_udp &&
		    address_same_host(&socket->address, &wanted) &&
		    (!port || port == port_of(&socket->address)))
			return socket;
	}
	return NULL;
}

/* A name may stand for several addresses, and no name for all of both kinds, as when they are bound. */
static struct inherited *find_ip(struct inheritance *inheritance, const struct listener_config *config)
{
	const char *hosts[] = { *config->host ? config->host : "::", *config->host ? NULL : "0.0.0.0" };
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE }, *list;
	struct inherited *found = NULL;
	for (int i = 0; i < 2 && hosts[i] && !found; i++) {
		if (getaddrinfo(hosts[i], NULL, &hints, &list))
			continue;
		for (struct addrinfo *info = list; info && !found; info = info->ai_next)
			found =
			    find_host(inheritance, info->ai_addr, config->port, config->kind == LISTENER_UDP);
		freeaddrinfo(list);
	}
	return found;
}

static struct inherited *find_unix(struct inheritance *inheritance, const struct listener_config *config)
{
	char path[ADDRESS_PATH_BYTES];
	for (unsigned i = 0; i < inheritance->count; i++) {
		struct inherited *socket = &inheritance->sockets[i];
		if (socket->fd >= 0 && !strcmp(address_path(&socket->address, path), config->path))
			return socket;
	}
	return NULL;
}

struct inherited *inheritance_find(struct inheritance *inheritance, const struct listener_config *config)
{
	if (!inheritance->count)
		return NULL;
	return config->kind == LISTENER_UNIX ? find_unix(inheritance, config) : find_ip(inheritance, config);
}

struct inherited *inheritance_find_same(struct inheritance *inheritance, const struct inherited *first)
{
	return find_host(inheritance, (const struct sockaddr *)&first->address, port_of(&first->address),
			 true);
}

/* ---- what is left ---- */

static void inherit_discard(struct inherited *socket, bool for_good)
{
	char text[ADDRESS_TEXT_BYTES], path[ADDRESS_PATH_BYTES];
	const char *shown = address_path(&socket->address, path);
	if (!*path)
		shown = address_text((const struct sockaddr *)&socket->address, text, sizeof text);
	log_write(LOG_WARN, "an inherited socket is closed: no listener has its address",
		  F_TEXT("address", socket->address.ss_family == AF_UNSPEC ? "no address" : shown),
		  F_TEXT("name", socket->name));
	if (for_good && *path && *path != '@' && !strcmp(socket->name, INHERITED_OWN))
		socket_file_remove(&socket->file, path);
	close(socket->fd);
}

void inheritance_close(struct inheritance *inheritance, bool for_good)
{
	for (unsigned i = 0; i < inheritance->count; i++)
		if (inheritance->sockets[i].fd >= 0)
			inherit_discard(&inheritance->sockets[i], for_good);
	if (inheritance->gate >= 0)
		close(inheritance->gate);
	if (inheritance->snapshots >= 0)
		close(inheritance->snapshots);
	free(inheritance->sockets);
	*inheritance = (struct inheritance){ .gate = -1, .snapshots = -1 };
}
