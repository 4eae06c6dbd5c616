/*
 * Lua values as bytes, on their way from one VM to another: plain data.
 *
 * Strings, numbers, booleans and nil are written as they are. All else goes through a function of Lua's that makes a
 * string of it (lua/perilune/plain.lua), and is told apart when it comes out again. The bytes are read by the process
 * that wrote them.
 */
#pragma once

#include <lua.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { VALUES_MAX = 255 };

struct values {
	unsigned count;
	size_t bytes;              /* that values_write() writes */
	uint8_t kinds[VALUES_MAX]; /* what each is */
};

/*
 * MAY RAISE. Makes the values from idx to the top ready to be written: what is no string, number, boolean or nil is
 * replaced by what the function at `pack`, given it and `most`, makes of it. False: all together they have more than
 * `most` bytes. At most VALUES_MAX; see to that before.
 */
bool values_ready(lua_State *lua, int idx, int pack, size_t most, struct values *values);

/* Writes them, values->bytes in all. Raises nothing. */
void values_write(lua_State *lua, int idx, const struct values *values, uint8_t *bytes);

/*
 * Pushes what was written, and says how many values these are. The stack has room for them: values_count(). MAY RAISE
 * for want of memory. *packed: are there some that the reverse function has still to be called for?
 */
int values_read(lua_State *lua, const uint8_t *bytes, size_t n, bool *packed);

/* How many values they are. */
unsigned values_count(const uint8_t *bytes, size_t n);

/* Pushes a string with a byte for each value: "p" where it is packed, else "-". MAY RAISE. */
void values_push_kinds(lua_State *lua, const uint8_t *bytes, size_t n);
