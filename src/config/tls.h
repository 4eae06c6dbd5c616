/* Reads `tls`, of listeners and of connections out, and the files that it names, into plain data. */
#pragma once

#include <lua.h>
#include <stdbool.h>
#include <stddef.h>

struct config;
struct tls_outgoing;
struct tls_settings;

/* Are files that its certificates and keys come from others by now, or gone? Any thread. */
bool config_tls_is_outdated(const struct config *config);

/*
 * Of the canonical table on top of the stack (lua/perilune/config/tls.lua). Relative paths are the script's folder's.
 * MAY RAISE: a text that says which file cannot be read and why, or "not enough memory"; *settings is to be freed
 * whatever happens.
 */
void config_read_tls(lua_State *lua, const struct config *config, struct tls_settings **settings);

/*
 * The same of a connection out, whose canonical table (outgoing() there) is on top of the stack and stays. NULL, or in
 * text which file cannot be read and why, and then *outgoing has nothing. Whether a context can be made of it is for
 * tls_outgoing_context() to say. It reads files, which the worker waits for. MAY RAISE "not enough memory", before it
 * has anything.
 */
const char *config_read_outgoing(lua_State *lua, const struct config *config, struct tls_outgoing *outgoing,
				 char *text, size_t size);
