/*
 * Loops over pairs() that keep to their table.
 *
 * For `in pairs(t)` and `in next, t` LuaJIT compiles a loop of its own (ISNEXT, ITERN). When its trace compiler gives
 * such a loop up, it turns it into one over any iterator (JMP, ITERC) in the middle of an iteration. Up to the version
 * of April 2022 the rest of the table was then left out without a word (LuaJIT issue 827; issue 1510 is another case of
 * it). Debian 12 has an older one. There, a recursive function that returned out of such a loop could also end the
 * process: a side trace that goes down the recursion leaves the processor's stack as it must not (issue 1169). That may
 * happen without such a loop as well, but has not been seen to. So all loops are made the second kind before anything
 * of a chunk runs. They cost two to four times as much then: bench/pairs.lua.
 *
 * What does not do for issue 1169: a large `recunroll` (traces of 8,000 instructions for a recursive function of one
 * line); one for side traces alone, set when they begin (LuaJIT's event "trace" walks off the stack of a coroutine
 * whose recording is given up).
 *
 * The instructions are changed in what lua_dump() makes, whose format is lj_bcdump.h's, and loaded again. Which they
 * are is found by compiling the same loop over `pairs` and over another name. Where the format is unknown, or LuaJIT
 * has no such loops, chunks stay as they are.
 *
 * Threads: the VM's.
 */
#include "vm/vm.h"

#include <string.h>

enum { DUMP_VERSION = 2, DUMP_IS_BIG_ENDIAN = 1, DUMP_IS_STRIPPED = 2, INSTRUCTION_BYTES = 4 };

/* What is read of a dump. */
struct cursor {
	uint8_t *at, *end;
	unsigned flags;
};

struct code {
	uint8_t *at;
	size_t count; /* instructions */
};

/* ---- dumps ---- */

static int dump_count(lua_State *lua, const void *bytes, size_t n, void *data)
{
	(void)lua, (void)bytes;
	*(size_t *)data += n;
	return 0;
}

static int dump_copy(lua_State *lua, const void *bytes, size_t n, void *data)
{
	uint8_t **at = data;
	(void)lua;
	memcpy(*at, bytes, n);
	*at += n;
	return 0;
}

size_t vm_dump_bytes(lua_State *lua)
{
	size_t n = 0;
	return lua_dump(lua, dump_count, &n) ? 0 : n;
}

bool vm_dump(lua_State *lua, uint8_t *bytes)
{
	return !lua_dump(lua, dump_copy, &bytes);
}

/* MAY RAISE. Of the function on top, which stays below it: Lua's own memory with its dump. */
static struct cursor push_dump(lua_State *lua)
{
	size_t n = vm_dump_bytes(lua);
	uint8_t *bytes = lua_newuserdata(lua, n);
	lua_pushvalue(lua, -2);
	if (!n || !vm_dump(lua, bytes))
		luaL_error(lua, "not enough memory");
	lua_pop(lua, 1);
	return (struct cursor){ bytes, bytes + n, 0 };
}

static uint32_t dump_read_number(struct cursor *cursor)
{
	uint32_t value = 0;
	for (unsigned shift = 0; cursor->at < cursor->end && shift < 32; shift += 7) {
		uint8_t byte = *cursor->at++;
		value |= (uint32_t)(byte & 0x7f) << shift;
		if (byte < 0x80)
			break;
	}
	return value;
}

static void skip_bytes(struct cursor *cursor, size_t n)
{
	size_t left = (size_t)(cursor->end - cursor->at);
	cursor->at += n < left ? n : left;
}

/* False: it is no dump that is known. */
static bool dump_read_head(struct cursor *cursor)
{
	static const uint8_t MAGIC[] = { 0x1b, 'L', 'J', DUMP_VERSION };
	if ((size_t)(cursor->end - cursor->at) < sizeof MAGIC || memcmp(cursor->at, MAGIC, sizeof MAGIC) != 0)
		return false;
	cursor->at += sizeof MAGIC;
	cursor->flags = dump_read_number(cursor);
	if (!(cursor->flags & DUMP_IS_STRIPPED))
		skip_bytes(cursor, dump_read_number(cursor)); /* the chunk's name */
	return true;
}

/* The instructions of the next function. False: there is none, or nothing that is understood. */
static bool next_code(struct cursor *cursor, struct code *code)
{
	enum { COUNTS = 4 /* a byte each: flags, parameters, frame, upvalues */ };
	size_t len = dump_read_number(cursor);
	if (!len || len > (size_t)(cursor->end - cursor->at))
		return false;
	struct cursor in = { cursor->at, cursor->at + len, cursor->flags };
	cursor->at += len;
	skip_bytes(&in, COUNTS);
	dump_read_number(&in); /* constants */
	dump_read_number(&in);
	code->count = dump_read_number(&in);
	if (!(in.flags & DUMP_IS_STRIPPED) && dump_read_number(&in)) {
		dump_read_number(&in); /* the first line, and how many */
		dump_read_number(&in);
	}
	code->at = in.at + (in.flags & DUMP_IS_BIG_ENDIAN ? INSTRUCTION_BYTES - 1 : 0);
	return code->count <= (size_t)(in.end - in.at) / INSTRUCTION_BYTES;
}

/* ---- which instructions ---- */

/* MAY RAISE. The opcodes of a chunk of one function, at most `most`; 0: what it is dumped as is not understood. */
static size_t read_opcodes(lua_State *lua, const char *text, uint8_t *found, size_t most)
{
	struct code code = { 0 };
	if (luaL_loadstring(lua, text))
		lua_error(lua);
	struct cursor cursor = push_dump(lua);
	bool is_read = dump_read_head(&cursor) && next_code(&cursor, &code) && code.count <= most;
	for (size_t i = 0; is_read && i < code.count; i++)
		found[i] = code.at[i * INSTRUCTION_BYTES];
	lua_pop(lua, 2);
	return is_read ? code.count : 0;
}

void vm_open_despecialize(lua_State *lua)
{
	enum { MOST = 16 };
	uint8_t special[MOST], any[MOST];
	size_t differ[2], n = 0;
	size_t count = read_opcodes(lua, "for _ in pairs(_) do end", special, MOST);
	if (read_opcodes(lua, "for _ in other(_) do end", any, MOST) != count)
		return;
	for (size_t i = 0; i < count; i++) {
		if (special[i] == any[i])
			continue;
		if (n == 2)
			return;
		differ[n++] = i;
	}
	if (n != 2)
		return;
	vm_of(lua)->loops = (struct vm_loops){ .is_known = true,
					       .begin = special[differ[0]],
					       .any_begin = any[differ[0]],
					       .next = special[differ[1]],
					       .any_next = any[differ[1]] };
}

/* ---- chunks ---- */

/* True: there was one. */
static bool change_code(const struct vm_loops *loops, const struct code *code)
{
	bool is_changed = false;
	for (size_t i = 0; i < code->count; i++) {
		uint8_t *op = code->at + i * INSTRUCTION_BYTES;
		if (*op != loops->begin && *op != loops->next)
			continue;
		*op = *op == loops->begin ? loops->any_begin : loops->any_next;
		is_changed = true;
	}
	return is_changed;
}

static bool change_loops(const struct vm_loops *loops, struct cursor cursor)
{
	struct code code;
	bool is_changed = false;
	if (!dump_read_head(&cursor))
		return false;
	while (next_code(&cursor, &code))
		is_changed |= change_code(loops, &code);
	return is_changed;
}

void vm_despecialize(lua_State *lua)
{
	const struct vm_loops *loops = &vm_of(lua)->loops;
	if (!loops->is_known || !lua_isfunction(lua, -1) || lua_iscfunction(lua, -1))
		return;
	int chunk = lua_gettop(lua);
	struct cursor dump = push_dump(lua);
	if (change_loops(loops, dump)) {
		if (luaL_loadbuffer(lua, (const char *)dump.at, (size_t)(dump.end - dump.at), "=?"))
			lua_error(lua);
		lua_getfenv(lua, chunk);
		lua_setfenv(lua, -2);
		lua_replace(lua, chunk);
	}
	lua_settop(lua, chunk);
}
