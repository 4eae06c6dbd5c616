/*
 * Writes values of Lua's as JSON.
 *
 * The text grows on the C stack first, then in userdata. Tables are read without asking their metatables, so that
 * nothing of the script's runs meanwhile. What JSON cannot say raises, with the way to it: "users[3].name".
 */
#include "base/real.h"
#include "base/text.h"
#include "bind/json.h"
#include "vm/vm.h"

#include <math.h>
#include <string.h>

enum {
	FIRST_BYTES = 4096,
	VALUE_BYTES = 64, /* what is not a string needs, and what stands beside values */
	TEXT_SLOT = 3,    /* on the stack: the userdata, if there is one */
	SHOWN_KEY_BYTES = 40,
	SHOWN_STEPS = 12,
};

/* A table that is being written, and which of its values is. */
struct step {
	const struct step *outer;
	const char *key; /* NULL: an item of an array */
	size_t n, index;
};

struct writer {
	lua_State *lua;
	const char *name;      /* for messages: "json.encode" */
	char *text, *at, *end; /* there are VALUE_BYTES behind the end */
	size_t look_at, max;
	unsigned depth, depth_max;
	bool is_sorted;
	const struct step *step;
};

/* MAY RAISE. Pushes the value at idx as text. */
static void write_value(struct writer *writer, int idx);

/* ---- faults ---- */

/* A name as Lua has it after a point. */
static bool is_plain_key(const char *key, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)key[i];
		bool is_letter = (unsigned)(c | 0x20) - 'a' < 26 || c == '_';
		if (!is_letter && (!i || (unsigned)c - '0' > 9))
			return false;
	}
	return n && n <= SHOWN_KEY_BYTES;
}

/* The last so many of the way to a value. */
static void add_step(luaL_Buffer *path, const struct step *step, int most)
{
	char shown[SHOWN_KEY_BYTES + 8];
	if (step->outer && most == 1)
		luaL_addstring(path, "…");
	else if (step->outer)
		add_step(path, step->outer, most - 1);
	if (!step->key) {
		snprintf(shown, sizeof shown, "[%zu]", step->index);
		luaL_addstring(path, shown);
	} else if (is_plain_key(step->key, step->n)) {
		if (step->outer)
			luaL_addchar(path, '.');
		luaL_addlstring(path, step->key, step->n);
	} else {
		luaL_addstring(path, "[\"");
		text_escape(TEXT_JSON, shown, SHOWN_KEY_BYTES, step->key, step->n);
		luaL_addstring(path, shown);
		luaL_addstring(path, "\"]");
	}
}

/* MAY RAISE: it always does. */
static void __attribute__((noreturn)) writer_refuse(struct writer *writer, const char *what)
{
	lua_State *lua = writer->lua;
	luaL_Buffer path;
	if (!writer->step)
		RAISE(lua, "%s: %s", writer->name, what);
	luaL_checkstack(lua, LUA_MINSTACK, writer->name);
	luaL_buffinit(lua, &path);
	add_step(&path, writer->step, SHOWN_STEPS);
	luaL_pushresult(&path);
	RAISE(lua, "%s: %s: %s", writer->name, lua_tostring(lua, -1), what);
}

/* ---- the text ---- */

static size_t written(const struct writer *writer)
{
	return (size_t)(writer->at - writer->text);
}

/* MAY RAISE. Before so many bytes more are written, or room is made for them. */
static void check_further(struct writer *writer, size_t n)
{
	if (written(writer) + n > writer->max)
		RAISE(writer->lua, "%s: the text is over %f bytes", writer->name, (lua_Number)writer->max);
}

/* MAY RAISE. */
static void writer_go_on(struct writer *writer)
{
	check_further(writer, 0);
	bind_go_on(writer->lua, writer->name);
	writer->look_at = written(writer) + BIND_PIECE_BYTES;
}

/* MAY RAISE. */
static void writer_grow(struct writer *writer, size_t n)
{
	size_t used = written(writer), size = 2 * (size_t)(writer->end - writer->text) + n + VALUE_BYTES;
	check_further(writer, 0);
	char *text = lua_newuserdata(writer->lua, size);
	memcpy(text, writer->text, used);
	lua_replace(writer->lua, TEXT_SLOT);
	writer->text = text;
	writer->at = text + used;
	writer->end = text + size - VALUE_BYTES;
}

/* MAY RAISE. Room for so many bytes, and VALUE_BYTES. */
static void need(struct writer *writer, size_t n)
{
	if ((size_t)(writer->end - writer->at) < n)
		writer_grow(writer, n);
}

static void writer_put(struct writer *writer, const char *text, size_t n)
{
	memcpy(writer->at, text, n);
	writer->at += n;
}

/* ---- strings ---- */

static void put_escape(struct writer *writer, unsigned char c)
{
	static const char LETTERS[] = "\b\f\n\r\t\"\\", NAMES[] = "bfnrt\"\\", DIGITS[] = "0123456789abcdef";
	const char *letter = c ? strchr(LETTERS, c) : NULL;
	*writer->at++ = '\\';
	if (letter) {
		*writer->at++ = NAMES[letter - LETTERS];
		return;
	}
	writer_put(writer, "u00", 3);
	*writer->at++ = DIGITS[c >> 4];
	*writer->at++ = DIGITS[c & 15];
}

/* What is left of a string after its plain characters. MAY RAISE. */
static void write_odd(struct writer *writer, const char *text, size_t n)
{
	for (size_t i = 0, plain; i < n; i += plain) {
		unsigned char c = (unsigned char)text[i++];
		if (c >= 0x80)
			writer_refuse(writer, "a string that is no UTF-8");
		plain = json_plain(text + i, n - i);
		need(writer, plain + VALUE_BYTES);
		put_escape(writer, c);
		writer_put(writer, text + i, plain);
		if (written(writer) >= writer->look_at)
			writer_go_on(writer);
	}
}

/* MAY RAISE. */
static void write_string(struct writer *writer, const char *text, size_t n)
{
	check_further(writer, n + 2); /* with its quotes; escapes are longer still */
	size_t plain = json_plain(text, n);
	need(writer, plain + VALUE_BYTES);
	*writer->at++ = '"';
	writer_put(writer, text, plain);
	if (plain < n)
		write_odd(writer, text + plain, n - plain);
	need(writer, VALUE_BYTES);
	*writer->at++ = '"';
}

/* ---- numbers ---- */

/* MAY RAISE. */
static void write_number(struct writer *writer, double number)
{
	if (isnan(number))
		writer_refuse(writer, "a number that is none (NaN) has no JSON form");
	if (isinf(number))
		writer_refuse(writer, "infinity has no JSON form");
	writer->at = real_print(writer->at, number);
}

/* MAY RAISE. An int64_t or uint64_t. */
static void write_wide(struct writer *writer, int idx)
{
	lua_State *lua = writer->lua;
	vm_push_function(lua, "perilune.int64", "split");
	lua_pushvalue(lua, idx);
	lua_call(lua, 1, 3);
	if (lua_isnil(lua, -3))
		writer_refuse(writer, "a cdata has no JSON form");
	uint64_t bits = (uint64_t)lua_tonumber(lua, -3) << 32 | (uint64_t)lua_tonumber(lua, -2);
	bool is_negative = lua_toboolean(lua, -1) && bits >> 63;
	lua_pop(lua, 3);
	if (is_negative)
		*writer->at++ = '-';
	writer->at = real_print_whole(writer->at, is_negative ? -bits : bits);
}

/* ---- arrays ---- */

/* MAY RAISE: it always does. The table at idx has items, and one is missing before the last. */
static void __attribute__((noreturn)) refuse_hole(struct writer *writer, int idx)
{
	char what[64];
	bool is_there = true;
	int i = 0;
	for (; is_there; lua_pop(writer->lua, 1)) {
		lua_rawgeti(writer->lua, idx, ++i);
		is_there = !lua_isnil(writer->lua, -1);
		if (i % BIND_PIECE_BYTES == 0)
			bind_go_on(writer->lua, writer->name);
	}
	snprintf(what, sizeof what, "a list with a hole at item %d: json.null fills it", i);
	writer_refuse(writer, what);
}

static bool is_place(lua_Number key)
{
	return key >= 1 && key == floor(key);
}

static void quote_key(lua_State *lua, int idx, char shown[SHOWN_KEY_BYTES])
{
	size_t n;
	const char *text;
	switch (lua_type(lua, idx)) {
	case LUA_TSTRING:
		text = lua_tolstring(lua, idx, &n);
		text_escape(TEXT_JSON, shown, SHOWN_KEY_BYTES, text, n);
		return;
	case LUA_TNUMBER:
		snprintf(shown, SHOWN_KEY_BYTES, "%.14g", lua_tonumber(lua, idx));
		return;
	case LUA_TBOOLEAN:
		snprintf(shown, SHOWN_KEY_BYTES, "%s", lua_toboolean(lua, idx) ? "true" : "false");
		return;
	default:
		snprintf(shown, SHOWN_KEY_BYTES, "(a %s)", luaL_typename(lua, idx));
	}
}

/* MAY RAISE: it always does. The table at idx, a list or an object, cannot have the key that is below the top. */
static void __attribute__((noreturn)) refuse_key(struct writer *writer, int idx, bool is_list)
{
	lua_State *lua = writer->lua;
	char key[SHOWN_KEY_BYTES], what[128];
	bool is_item = lua_type(lua, -2) == LUA_TNUMBER && is_place(lua_tonumber(lua, -2));
	if (is_item && is_list)
		refuse_hole(writer, idx);
	quote_key(lua, -2, key);
	snprintf(what, sizeof what,
		 lua_type(lua, -2) == LUA_TSTRING ? "a list with the key \"%s\" beside its items"
		 : is_item                        ? "an object with the item [%s] beside its keys"
						  : "the key %s is no string: tostring(key) makes one of it",
		 key);
	writer_refuse(writer, what);
}

/* MAY RAISE. The keys have to be just 1 to n. The slow way: all of them are looked at. */
static void check_items(struct writer *writer, int idx, size_t n)
{
	lua_State *lua = writer->lua;
	size_t count = 0;
	for (lua_pushnil(lua); lua_next(lua, idx); lua_pop(lua, 1)) {
		lua_Number key = lua_type(lua, -2) == LUA_TNUMBER ? lua_tonumber(lua, -2) : 0;
		if (!is_place(key) || key > (lua_Number)n)
			refuse_key(writer, idx, true);
		if (++count % BIND_PIECE_BYTES == 0)
			bind_go_on(lua, writer->name);
	}
	if (count < n)
		refuse_hole(writer, idx);
}

/* MAY RAISE: it always does. Wherever memory is asked for, a finaliser of the script's may run. */
static void __attribute__((noreturn)) refuse_change(struct writer *writer)
{
	writer_refuse(writer, "the table was changed meanwhile, by a finaliser");
}

/* MAY RAISE. The next item is at idx. */
static void write_item(struct writer *writer, int idx, struct step *step)
{
	need(writer, VALUE_BYTES);
	if (step->index++)
		*writer->at++ = ',';
	write_value(writer, idx);
}

/* MAY RAISE. False: the keys do not come as 1, 2, 3, …, as they do where all items are in the table's array. */
static bool write_in_order(struct writer *writer, int idx, struct step *step)
{
	lua_State *lua = writer->lua;
	int item = lua_gettop(lua) + 2;
	for (lua_pushnil(lua); lua_next(lua, idx); lua_pop(lua, 1)) {
		if (lua_type(lua, -2) != LUA_TNUMBER ||
		    lua_tonumber(lua, -2) != (lua_Number)step->index + 1) {
			lua_pop(lua, 2);
			return false;
		}
		write_item(writer, item, step);
	}
	return true;
}

/* MAY RAISE. */
static void write_by_number(struct writer *writer, int idx, struct step *step)
{
	lua_State *lua = writer->lua;
	size_t n = lua_objlen(lua, idx);
	writer->step = step->outer; /* it is the list that is wrong */
	check_items(writer, idx, n);
	writer->step = step;
	for (step->index = 0; step->index < n; lua_pop(lua, 1)) {
		lua_rawgeti(lua, idx, (int)step->index + 1);
		if (lua_isnil(lua, -1))
			refuse_change(writer);
		write_item(writer, lua_gettop(lua), step);
	}
}

/* MAY RAISE. */
static void write_array(struct writer *writer, int idx)
{
	struct step step = { .outer = writer->step };
	writer->step = &step;
	*writer->at++ = '[';
	size_t begun = written(writer);
	if (!write_in_order(writer, idx, &step)) {
		writer->at = writer->text + begun;
		write_by_number(writer, idx, &step);
	}
	need(writer, VALUE_BYTES);
	*writer->at++ = ']';
	writer->step = step.outer;
}

/* ---- objects ---- */

/* MAY RAISE. Of the table at idx; its value is at `value`, on top of the stack, and the key below. */
static void write_member(struct writer *writer, int idx, struct step *step, int value, bool is_first)
{
	lua_State *lua = writer->lua;
	if (lua_type(lua, -2) != LUA_TSTRING)
		refuse_key(writer, idx, false);
	step->key = lua_tolstring(lua, -2, &step->n);
	step->outer = writer->step;
	writer->step = step;
	need(writer, VALUE_BYTES);
	if (!is_first)
		*writer->at++ = ',';
	write_string(writer, step->key, step->n);
	*writer->at++ = ':';
	write_value(writer, value);
	writer->step = step->outer;
}

/* One of the keys that are being sorted, and where it is kept. */
struct key {
	const char *text;
	uint32_t n, index; /* LuaJIT's strings have fewer than 2^31 bytes, and its tables fewer items */
};

static bool key_is_before(const struct key *a, const struct key *b)
{
	int order = memcmp(a->text, b->text, a->n < b->n ? a->n : b->n);
	return order ? order < 0 : a->n < b->n;
}

/* MAY RAISE. Merges neighbours that are sorted, of so many keys each. */
static void merge(struct writer *writer, struct key *to, const struct key *from, size_t count, size_t width)
{
	for (size_t begin = 0; begin < count; begin += 2 * width) {
		size_t middle = begin + width < count ? begin + width : count;
		size_t end = middle + width < count ? middle + width : count, a = begin, b = middle;
		for (size_t i = begin; i < end; i++) {
			bool takes_a = b == end || (a < middle && !key_is_before(&from[b], &from[a]));
			to[i] = from[takes_a ? a++ : b++];
			if (i % BIND_PIECE_BYTES == BIND_PIECE_BYTES - 1)
				bind_go_on(writer->lua, writer->name);
		}
	}
}

/* MAY RAISE. */
static size_t count_keys(struct writer *writer, int idx)
{
	lua_State *lua = writer->lua;
	size_t count = 0;
	for (lua_pushnil(lua); lua_next(lua, idx); lua_pop(lua, 1)) {
		if (lua_type(lua, -2) != LUA_TSTRING)
			refuse_key(writer, idx, false);
		if (++count % BIND_PIECE_BYTES == 0)
			bind_go_on(lua, writer->name);
	}
	return count;
}

/* MAY RAISE. Puts the keys, `count` of them, into the list on top of the stack as well, which has room for them. */
static void note_keys(struct writer *writer, int idx, struct key *keys, size_t count)
{
	lua_State *lua = writer->lua;
	int list = lua_gettop(lua);
	uint32_t i = 0;
	for (lua_pushnil(lua); lua_next(lua, idx); lua_pop(lua, 1)) {
		size_t n;
		if (i == count || lua_type(lua, -2) != LUA_TSTRING)
			refuse_change(writer);
		const char *text = lua_tolstring(lua, -2, &n);
		keys[i] = (struct key){ text, (uint32_t)n, i + 1 };
		lua_pushvalue(lua, -2);
		lua_rawseti(lua, list, (int)++i);
		if (i % BIND_PIECE_BYTES == 0)
			bind_go_on(lua, writer->name);
	}
	if (i < count)
		refuse_change(writer);
}

/*
 * MAY RAISE. Pushes what the keys of the table are sorted in, and a list of them; they are in order in `keys`, and as
 * many as are returned. Wherever memory is asked for, a finaliser may add keys to the table or remove some: so those
 * that were counted are no more than a guess, and what is sorted is kept by the list.
 */
static size_t push_sorted_keys(struct writer *writer, int idx, struct key **keys)
{
	size_t count = count_keys(writer, idx);
	*keys = lua_newuserdata(writer->lua, 2 * count * sizeof **keys);
	lua_createtable(writer->lua, (int)count, 0);
	note_keys(writer, idx, *keys, count);
	struct key *spare = *keys + count;
	for (size_t width = 1; width < count; width *= 2) {
		struct key *from = *keys;
		merge(writer, spare, from, count, width);
		*keys = spare;
		spare = from;
	}
	return count;
}

/* MAY RAISE. */
static void write_sorted(struct writer *writer, int idx)
{
	lua_State *lua = writer->lua;
	struct step step = { 0 };
	struct key *keys;
	size_t count = push_sorted_keys(writer, idx, &keys);
	int list = lua_gettop(lua);
	for (size_t i = 0; i < count; i++) {
		lua_rawgeti(lua, list, (int)keys[i].index);
		lua_pushvalue(lua, -1);
		lua_rawget(lua, idx);
		if (lua_isnil(lua, -1))
			refuse_change(writer);
		write_member(writer, idx, &step, list + 2, !i);
		lua_pop(lua, 2);
	}
	lua_pop(lua, 2);
}

/* MAY RAISE. The first pair of the table is on top of the stack, and is taken off it. */
static void write_object(struct writer *writer, int idx)
{
	lua_State *lua = writer->lua;
	struct step step = { 0 };
	int value = lua_gettop(lua);
	*writer->at++ = '{';
	if (writer->is_sorted) {
		lua_pop(lua, 2);
		write_sorted(writer, idx);
	} else {
		bool is_first = true;
		do {
			write_member(writer, idx, &step, value, is_first);
			is_first = false;
			lua_pop(lua, 1);
		} while (lua_next(lua, idx));
	}
	need(writer, VALUE_BYTES);
	*writer->at++ = '}';
}

/* ---- values ---- */

static bool is_marked(lua_State *lua, int idx)
{
	if (!lua_getmetatable(lua, idx))
		return false;
	bool is = lua_rawequal(lua, -1, lua_upvalueindex(1));
	lua_pop(lua, 1);
	return is;
}

/* MAY RAISE. Those that are marked are arrays, and those that have any item. */
static void write_table(struct writer *writer, int idx)
{
	enum { SLOTS = 12 };
	lua_State *lua = writer->lua;
	if (++writer->depth > writer->depth_max)
		writer_refuse(writer, "nested too deeply, or within itself");
	luaL_checkstack(lua, SLOTS, writer->name);
	bool is_array = is_marked(lua, idx);
	lua_pushnil(lua);
	if (!lua_next(lua, idx)) {
		writer_put(writer, is_array ? "[]" : "{}", 2);
	} else if (is_array || lua_type(lua, -2) == LUA_TNUMBER) {
		lua_pop(lua, 2);
		write_array(writer, idx);
	} else {
		write_object(writer, idx);
	}
	writer->depth--;
}

/* MAY RAISE: it always does. */
static void __attribute__((noreturn)) refuse_type(struct writer *writer, int idx)
{
	char what[64];
	snprintf(what, sizeof what, "a %s has no JSON form", luaL_typename(writer->lua, idx));
	writer_refuse(writer, what);
}

static void write_value(struct writer *writer, int idx)
{
	lua_State *lua = writer->lua;
	const char *text;
	size_t n;
	need(writer, VALUE_BYTES);
	if (written(writer) >= writer->look_at)
		writer_go_on(writer);
	switch (lua_type(lua, idx)) {
	case LUA_TSTRING:
		text = lua_tolstring(lua, idx, &n);
		write_string(writer, text, n);
		return;
	case LUA_TNUMBER:
		write_number(writer, lua_tonumber(lua, idx));
		return;
	case LUA_TBOOLEAN:
		if (lua_toboolean(lua, idx))
			writer_put(writer, "true", 4);
		else
			writer_put(writer, "false", 5);
		return;
	case LUA_TTABLE:
		write_table(writer, idx);
		return;
	case JSON_CDATA:
		write_wide(writer, idx);
		return;
	case LUA_TLIGHTUSERDATA:
		if (lua_touserdata(lua, idx))
			break;
		__attribute__((fallthrough));
	case LUA_TNIL:
		writer_put(writer, "null", 4);
		return;
	default:
		break;
	}
	refuse_type(writer, idx);
}

/* MAY RAISE. Pushes the value at 1 as text. */
static int push_text(lua_State *lua, const char *name, const struct json_options *options)
{
	char first[FIRST_BYTES];
	struct writer writer = { .lua = lua,
				 .name = name,
				 .text = first,
				 .at = first,
				 .end = first + FIRST_BYTES - VALUE_BYTES,
				 .look_at = BIND_PIECE_BYTES,
				 .max = options->max,
				 .depth_max = options->depth,
				 .is_sorted = options->is_sorted };
	lua_settop(lua, TEXT_SLOT);
	write_value(&writer, 1);
	check_further(&writer, 0);
	lua_pushlstring(lua, writer.text, written(&writer));
	return 1;
}

int json_l_encode(lua_State *lua)
{
	static const char *const OPTIONS[] = { "depth", "max", "sorted", NULL };
	if (lua_isnone(lua, 1))
		bind_raise(lua, "json.encode: a value is expected");
	BIND_AT_MOST(lua, 2, "json.encode");
	struct json_options options = json_check_options(lua, 2, OPTIONS, "json.encode");
	return push_text(lua, "json.encode", &options);
}

int json_l_encode_reply(lua_State *lua)
{
	static const struct json_options OPTIONS = { .depth = JSON_DEPTH, .max = JSON_BYTES };
	return push_text(lua, "http", &OPTIONS);
}
