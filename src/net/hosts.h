/*
 * Names that need no DNS server: those in the hosts file, hosts(5), and localhost.
 *
 * The file is read anew each time, by blocking calls, as the C library does: it is small and local, and the resolver
 * remembers what it says.
 *
 * Any thread.
 */
#pragma once

#include "net/address.h"

/*
 * Adds the addresses of `name` that are of `family`. localhost and what ends in .localhost is the loopback unless the
 * file says otherwise (RFC 6761, section 6.3). 0; UV_EAI_NODATA: it is known, but has no such address, and nobody else
 * is to be asked; UV_EAI_NONAME: it is not known; or another error.
 */
int hosts_find(const char *path, const char *name, int family, struct addresses *addresses);
