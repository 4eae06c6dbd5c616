#include "conn/peer.h"

#include "conn/conn.h"

#include <stdio.h>
#include <string.h>

const char *peer_text(const struct conn *conn, char *text, size_t size)
{
	return address_text((const struct sockaddr *)(const void *)&conn->peer, text, size);
}

const char *local_text(struct conn *conn, char *text, size_t size)
{
	struct sockaddr_storage local = { 0 };
	char path[ADDRESS_PATH_BYTES];
	if (stream_local_address(&conn->io, &local))
		snprintf(text, size, "%s", "");
	else if (local.ss_family == AF_UNIX)
		snprintf(text, size, "unix:%s", address_path(&local, path));
	else
		address_text((struct sockaddr *)&local, text, size);
	return text;
}
