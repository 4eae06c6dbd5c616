/*
 * The C/Lua boundary: one file per Lua library, one list of openers.
 *
 * Functions marked MAY RAISE leave by longjmp on bad arguments: they validate
 * before they acquire anything.
 */
#pragma once

#include "frame/codec.h"

#include <lua.h>
#include <stdint.h>

struct agents;

/* conn.c: pushes the metatable of conn objects. */
void bind_conn(lua_State *lua);

/* core.c: pushes the table behind `require "perilune"`. */
void bind_core(lua_State *lua);

/*
 * codec.c: fills in a codec from the canonical table (perilune.config.frame) at idx. A codec in Lua
 * keeps references to its functions in the registry. NULL, or what is wrong. MAY RAISE on no memory.
 */
const char *bind_codec(lua_State *lua, int idx, struct codec *codec);

/* codec.c: the same from what a user wrote (a name or a table) at idx. MAY RAISE. */
void bind_codec_check(lua_State *lua, int idx, uint32_t max_bytes, struct codec *codec);

/* units: a duration at idx (seconds, "5m", false) in milliseconds. MAY RAISE. */
uint32_t bind_duration_check(lua_State *lua, int idx);
