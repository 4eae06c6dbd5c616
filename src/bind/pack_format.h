/*
 * The formats of string.pack and its kin, as Lua 5.3 reads them: option after option.
 *
 * Threads: those of the VM.
 */
#pragma once

#include <lua.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>

enum pack_option {
	PACK_INTEGER,
	PACK_UNSIGNED,
	PACK_REAL,
	PACK_CHARACTERS,
	PACK_COUNTED,
	PACK_ZERO_ENDED,
	PACK_PADDING,
	PACK_ALIGNMENT,
	PACK_NOTHING
};

struct pack_format {
	lua_State *lua;
	const volatile sig_atomic_t *stop; /* set: raise, and come to no end */
	const char *at;                    /* what is not read yet */
	bool is_little;
	int align_max;
};

/* An option, `size` bytes, and before it `skipped` ones, so that it is aligned. */
struct pack_item {
	enum pack_option option;
	int size;
	int skipped;
};

/* MAY RAISE. The format is the first argument. */
struct pack_format pack_format_of(lua_State *lua, const volatile sig_atomic_t *stop);

/* MAY RAISE. The next option, for a place `at` bytes behind the first. False: there is none. */
bool pack_next_item(struct pack_format *format, size_t at, struct pack_item *item);
