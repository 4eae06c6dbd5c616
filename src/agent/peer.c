#include "agent/peer.h"

#include "conn/conn.h"
#include "conn/transport.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

static const char *ipv6_text(const struct sockaddr_in6 *in6, char *text, size_t size)
{
	char host[INET6_ADDRSTRLEN];
	bool mapped = IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr);
	if (mapped)
		inet_ntop(AF_INET, &in6->sin6_addr.s6_addr[12], host, sizeof host);
	else
		inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof host);
	snprintf(text, size, mapped ? "%s:%u" : "[%s]:%u", host, ntohs(in6->sin6_port));
	return text;
}

const char *address_text(const struct sockaddr *address, char *text, size_t size)
{
	char host[INET_ADDRSTRLEN];
	struct sockaddr_in in;
	switch (address->sa_family) {
	case AF_INET:
		memcpy(&in, address, sizeof in);
		inet_ntop(AF_INET, &in.sin_addr, host, sizeof host);
		snprintf(text, size, "%s:%u", host, ntohs(in.sin_port));
		return text;
	case AF_INET6:
		return ipv6_text((const struct sockaddr_in6 *)(const void *)address, text, size);
	default:
		snprintf(text, size, "unix");
		return text;
	}
}

const char *peer_text(const struct conn *conn, char *text, size_t size)
{
	return address_text((const struct sockaddr *)(const void *)&conn->peer, text, size);
}

const char *local_text(struct conn *conn, char *text, size_t size)
{
	struct sockaddr_storage local;
	if (conn->transport->local_address(conn, &local)) {
		snprintf(text, size, "%s", "");
		return text;
	}
	if (local.ss_family != AF_UNIX)
		return address_text((struct sockaddr *)&local, text, size);
	snprintf(text, size, "unix:%s", ((struct sockaddr_un *)(void *)&local)->sun_path);
	return text;
}
