/* Reads a listener's `tls`, and the files that it names, into plain data. */
#pragma once

#include <lua.h>
#include <stdbool.h>

struct config;
struct tls_settings;

/* Are files that its certificates and keys come from others by now, or gone? Any thread. */
bool config_tls_is_outdated(const struct config *config);

/*
 * Of the canonical table on top of the stack (lua/perilune/config/tls.lua). Relative paths are the script's folder's.
 * MAY RAISE: a text that says which file cannot be read and why, or "not enough memory"; *settings is to be freed
 * whatever happens.
 */
void config_read_tls(lua_State *lua, const struct config *config, struct tls_settings **settings);
