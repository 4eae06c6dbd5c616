/*
 * find, match, gmatch and gsub as LuaJIT has them, on a matcher that can be stopped. Handlers see
 * them by way of lua/perilune/strings.lua.
 *
 * What LuaJIT does is the specification, down to the order in which arguments are checked. Nothing
 * here is held across a call that may raise: results grow in userdata, which the collector owns.
 */
#include "base/pattern.h"
#include "bind/bind.h"
#include "vm/vm.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

enum {
	PATTERN_STEPS = 10000000, /* a call's budget: some 20 to 50 ms */
	PATTERN_STEPS_PER_BYTE = 64,
	GSUB_NESTED_MAX = 150, /* of about 2 KB of C stack each */
	RESULT_FIRST_BYTES = 512,
	TEXT_BYTES = 32
};

/* A VM's: the first upvalue of all functions here. */
struct strings {
	const volatile sig_atomic_t *stop; /* the VM's */
	size_t result_max;                 /* bytes of a result of gsub */
	/* The stack addresses of the gsubs that may call back, see enter_gsub(). */
	unsigned nested;
	uintptr_t frames[GSUB_NESTED_MAX];
};

static struct strings *strings_of(lua_State *lua)
{
	return lua_touserdata(lua, lua_upvalueindex(1));
}

/* ---- searches ---- */

struct search {
	lua_State *lua;
	const char *subject, *pattern;
	size_t len;
	int64_t steps; /* the whole budget */
	struct pattern_budget budget;
	struct pattern_match match;
};

static void search_init(struct search *search, lua_State *lua, const char *subject, size_t len,
			const char *pattern)
{
	search->lua = lua;
	search->subject = subject;
	search->pattern = pattern;
	search->len = len;
	search->steps = PATTERN_STEPS + PATTERN_STEPS_PER_BYTE * (int64_t)len;
	pattern_budget_init(&search->budget, search->steps, strings_of(lua)->stop);
}

/* 1234567 as "1,234,567". */
static const char *with_commas(char text[TEXT_BYTES], uint64_t number)
{
	char *p = text + TEXT_BYTES - 1;
	*p = '\0';
	for (int digits = 1;; digits++) {
		*--p = (char)('0' + number % 10);
		number /= 10;
		if (!number)
			return p;
		if (digits % 3 == 0)
			*--p = ',';
	}
}

/* MAY RAISE: it always does. */
static int search_raise(struct search *search, int status)
{
	char steps[TEXT_BYTES], bytes[TEXT_BYTES];
	if (status != PATTERN_EXHAUSTED)
		RAISE(search->lua, "%s", pattern_message(status));
	RAISE(search->lua,
	      "pattern too complex: over %s steps on a subject of %s bytes (simplify the pattern, search for"
	      " plain text with find(text, at, true), or shorten the subject)",
	      with_commas(steps, (uint64_t)search->steps), with_commas(bytes, search->len));
}

/* MAY RAISE. Finds the first match from subject[at] on, or with `anchored` one right there. */
static bool search_next(struct search *search, size_t at, bool anchored)
{
	int status = (anchored ? pattern_match : pattern_search)(
	    search->subject, search->len, at, search->pattern, &search->budget, &search->match);
	if (status < 0)
		return search_raise(search, status);
	return status == PATTERN_FOUND;
}

/* MAY RAISE. Pushes the i-th capture; the whole match stands for the first of none. */
static void push_capture(lua_State *lua, const struct search *search, unsigned i)
{
	const struct pattern_match *match = &search->match;
	if (i >= match->count) {
		if (i > 0)
			RAISE(lua, "%s", pattern_message(PATTERN_BAD_INDEX));
		lua_pushlstring(lua, match->start, (size_t)(match->end - match->start));
		return;
	}
	const struct pattern_capture *capture = &match->captures[i];
	if (capture->len == PATTERN_POSITION)
		lua_pushinteger(lua, capture->at - search->subject + 1);
	else if (capture->len == PATTERN_OPEN)
		RAISE(lua, "unfinished capture");
	else
		lua_pushlstring(lua, capture->at, (size_t)capture->len);
}

/* MAY RAISE. Pushes all captures, or `least` values of them. Returns how many. */
static int push_captures(lua_State *lua, const struct search *search, unsigned least)
{
	unsigned n = search->match.count > least ? search->match.count : least;
	if (n > LUA_MINSTACK / 2)
		luaL_checkstack(lua, (int)n, "too many captures");
	for (unsigned i = 0; i < n; i++)
		push_capture(lua, search, i);
	return (int)n;
}

/* ---- find, match, gmatch ---- */

/* As LuaJIT converts numbers to int32_t: what does not fit is the least. */
static int32_t narrow(lua_Number number)
{
	return number > -2147483649.0 && number < 2147483648.0 ? (int32_t)number : INT32_MIN;
}

/* MAY RAISE. `init`, the third argument, as an offset into a subject. */
static size_t check_init(lua_State *lua, size_t len)
{
	if (lua_isnoneornil(lua, 3))
		return 0;
	int64_t at = narrow(luaL_checknumber(lua, 3));
	at = at < 0 ? at + (int64_t)len : at - 1;
	if (at < 0)
		return 0;
	return (size_t)at > len ? len : (size_t)at;
}

/* MAY RAISE. memmem() that can be ended: it looks at a piece after the other, which overlap by what is sought. */
static const char *find_text(lua_State *lua, const char *subject, size_t len, const char *text,
			     size_t text_len)
{
	enum { PIECE_BYTES = 1 << 20 };
	size_t step = text_len > PIECE_BYTES ? text_len : PIECE_BYTES;
	while (len > step + text_len) {
		const char *found = memmem(subject, step + text_len, text, text_len);
		if (found)
			return found;
		if (guard_must_end(&vm_of(lua)->guard, lua))
			RAISE(lua, "%s", pattern_message(PATTERN_STOPPED));
		subject += step;
		len -= step;
	}
	return memmem(subject, len, text, text_len);
}

static int find_plain(lua_State *lua, const char *subject, size_t len, const char *text, size_t text_len)
{
	size_t at = check_init(lua, len);
	const char *found = find_text(lua, subject + at, len - at, text, text_len);
	if (!found) {
		lua_pushnil(lua);
		return 1;
	}
	lua_pushinteger(lua, found - subject + 1);
	lua_pushinteger(lua, found - subject + (ptrdiff_t)text_len);
	return 2;
}

/* MAY RAISE. What find and match share: searches once, with ^ as an anchor. */
static bool search_once(lua_State *lua, struct search *search, const char *subject, size_t len,
			const char *pattern)
{
	size_t at = check_init(lua, len);
	bool anchored = *pattern == '^';
	search_init(search, lua, subject, len, pattern + anchored);
	return search_next(search, at, anchored);
}

/* MAY RAISE. find(s, pattern [, init [, plain]]) */
static int l_find(lua_State *lua)
{
	struct search search;
	size_t len, pattern_len;
	const char *subject = luaL_checklstring(lua, 1, &len);
	const char *pattern = luaL_checklstring(lua, 2, &pattern_len);
	if (lua_toboolean(lua, 4) || !pattern_is_special(pattern, pattern_len))
		return find_plain(lua, subject, len, pattern, pattern_len);
	if (!search_once(lua, &search, subject, len, pattern)) {
		lua_pushnil(lua);
		return 1;
	}
	lua_pushinteger(lua, search.match.start - subject + 1);
	lua_pushinteger(lua, search.match.end - subject);
	return 2 + push_captures(lua, &search, 0);
}

/* MAY RAISE. match(s, pattern [, init]) */
static int l_match(lua_State *lua)
{
	struct search search;
	size_t len;
	const char *subject = luaL_checklstring(lua, 1, &len);
	const char *pattern = luaL_checkstring(lua, 2);
	if (search_once(lua, &search, subject, len, pattern))
		return push_captures(lua, &search, 1);
	lua_pushnil(lua);
	return 1;
}

/*
 * MAY RAISE. gmatch_next(s, pattern, state): what the iterator of gmatch returns; state[1] is the offset to go
 * on from. The iterator is a function in Lua, for LuaJIT would compile a loop over closures in C anew for
 * each closure. ^ is no anchor here.
 */
static int l_gmatch_next(lua_State *lua)
{
	struct search search;
	size_t len;
	const char *subject = lua_tolstring(lua, 1, &len);
	const char *pattern = lua_tostring(lua, 2);
	lua_rawgeti(lua, 3, 1);
	size_t at = (size_t)lua_tointeger(lua, -1);
	search_init(&search, lua, subject, len, pattern);
	if (at > len || !search_next(&search, at, false))
		return 0;
	/* An empty match must not be found again. */
	bool is_empty = search.match.end == search.match.start;
	lua_pushinteger(lua, search.match.end - subject + is_empty);
	lua_rawseti(lua, 3, 1);
	return push_captures(lua, &search, 1);
}

/* MAY RAISE: what gmatch raises for its arguments, if they are no strings. */
static int l_gmatch_check(lua_State *lua)
{
	luaL_checkstring(lua, 1);
	luaL_checkstring(lua, 2);
	return 0;
}

/* ---- gsub: its result ---- */

/* Grows from the C stack into userdata at GSUB_BUFFER. */
struct result {
	lua_State *lua;
	struct strings *strings;
	char *data;
	size_t len, size;
	char first[RESULT_FIRST_BYTES];
};

/* Indices on gsub's stack. */
enum { GSUB_SUBJECT = 1, GSUB_PATTERN, GSUB_REPLACEMENT, GSUB_MAX, GSUB_BUFFER };

/* Not with an initialiser, which would clear all of `first`. */
static void result_init(struct result *result, lua_State *lua)
{
	result->lua = lua;
	result->strings = strings_of(lua);
	result->data = result->first;
	result->len = 0;
	result->size = RESULT_FIRST_BYTES;
}

void bind_raise_too_large(lua_State *lua, const char *what, size_t max)
{
	char bytes[TEXT_BYTES];
	size_t mib = max >> 20;
	bool is_whole = mib && mib << 20 == max;
	RAISE(lua, "%s: the result is over the memory limit of %s %s", what,
	      with_commas(bytes, is_whole ? mib : max), is_whole ? "MiB" : "bytes");
}

/* MAY RAISE. */
static void result_grow(struct result *result, size_t bytes)
{
	size_t max = result->strings->result_max;
	if (guard_must_end(&vm_of(result->lua)->guard, result->lua))
		RAISE(result->lua, "%s", pattern_message(PATTERN_STOPPED));
	if (result->len > max || bytes > max - result->len)
		bind_raise_too_large(result->lua, "string.gsub", max);
	size_t size = 2 * result->size;
	if (size < result->len + bytes)
		size = result->len + bytes;
	char *data = lua_newuserdata(result->lua, size);
	memcpy(data, result->data, result->len);
	lua_replace(result->lua, GSUB_BUFFER);
	result->data = data;
	result->size = size;
}

/* MAY RAISE. */
static inline void result_add(struct result *result, const char *data, size_t bytes)
{
	if (bytes > result->size - result->len)
		result_grow(result, bytes);
	memcpy(result->data + result->len, data, bytes);
	result->len += bytes;
}

/* MAY RAISE. Adds the string or number on top of the stack and pops it. */
static void result_add_value(struct result *result)
{
	size_t bytes;
	const char *text = lua_tolstring(result->lua, -1, &bytes);
	result_add(result, text, bytes);
	lua_pop(result->lua, 1);
}

/* ---- gsub: replacements ---- */

/* MAY RAISE. Adds a capture by its digit: %0 to %9. */
static void add_capture(struct result *result, const struct search *search, char digit)
{
	const struct pattern_match *match = &search->match;
	unsigned i = (unsigned)(digit - '1');
	if (digit == '0') {
		result_add(result, match->start, (size_t)(match->end - match->start));
	} else if (i < match->count && match->captures[i].len >= 0) {
		result_add(result, match->captures[i].at, (size_t)match->captures[i].len);
	} else {
		push_capture(result->lua, search, i);
		result_add_value(result);
	}
}

/* MAY RAISE. A replacement string, with its % sequences carried out. */
static void strings_add_text(struct result *result, const struct search *search)
{
	size_t len;
	const char *text = lua_tolstring(result->lua, GSUB_REPLACEMENT, &len), *end = text + len;
	while (text < end) {
		const char *escape = memchr(text, '%', (size_t)(end - text));
		result_add(result, text, (size_t)((escape ? escape : end) - text));
		if (!escape)
			return;
		/* At the end of the text there is a NUL behind a %, and LuaJIT adds that. */
		char c = escape[1];
		if (c >= '0' && c <= '9')
			add_capture(result, search, c);
		else
			result_add(result, escape + 1, 1);
		text = escape + 2;
	}
}

/* MAY RAISE. The value on top of the stack, popped; nil or false: what was matched stays. */
static void add_answer(struct result *result, const struct search *search)
{
	lua_State *lua = result->lua;
	if (lua_isstring(lua, -1)) {
		result_add_value(result);
		return;
	}
	if (lua_toboolean(lua, -1))
		RAISE(lua, "invalid replacement value (a %s)", luaL_typename(lua, -1));
	lua_pop(lua, 1);
	result_add(result, search->match.start, (size_t)(search->match.end - search->match.start));
}

/* MAY RAISE, and call back. */
static void add_replacement(struct result *result, const struct search *search)
{
	lua_State *lua = result->lua;
	switch (lua_type(lua, GSUB_REPLACEMENT)) {
	case LUA_TFUNCTION:
		lua_pushvalue(lua, GSUB_REPLACEMENT);
		lua_call(lua, push_captures(lua, search, 1), 1);
		add_answer(result, search);
		break;
	case LUA_TTABLE:
		push_capture(lua, search, 0);
		lua_gettable(lua, GSUB_REPLACEMENT);
		add_answer(result, search);
		break;
	default:
		strings_add_text(result, search);
	}
}

/*
 * MAY RAISE. A gsub calls back on the C stack, which overflows before Lua's does. Errors skip us on
 * their way out, so entries may be left behind: those whose frame is not above ours are dead, as the
 * stack grows down. An entry that is left behind above us counts until the stack is as low as it again,
 * so no error can make the count grow for good. Returns how many are left outside of this one.
 */
static unsigned enter_gsub(lua_State *lua, struct strings *strings, uintptr_t frame)
{
	while (strings->nested && strings->frames[strings->nested - 1] <= frame)
		strings->nested--;
	if (strings->nested == GSUB_NESTED_MAX)
		RAISE(lua, "string.gsub: its callbacks are nested too deep (%d calls)", GSUB_NESTED_MAX);
	strings->frames[strings->nested] = frame;
	return strings->nested++;
}

/* MAY RAISE. Replaces up to `max` matches; returns how many there were. */
static int replace(struct search *search, struct result *result, int max, bool anchored)
{
	const char *s = search->subject, *end = s + search->len;
	int n = 0;
	while (n < max && search_next(search, (size_t)(s - search->subject), anchored)) {
		n++;
		result_add(result, s, (size_t)(search->match.start - s));
		s = search->match.end;
		bool is_empty = s == search->match.start;
		add_replacement(result, search);
		if (is_empty && s == end)
			break;
		/* The same place would match again. */
		if (is_empty)
			result_add(result, s++, 1);
		if (anchored)
			break;
	}
	result_add(result, s, (size_t)(end - s));
	return n;
}

/* MAY RAISE. gsub(s, pattern, replacement [, max]) */
static int l_gsub(lua_State *lua)
{
	struct search search;
	struct result result;
	size_t len;
	const char *subject = luaL_checklstring(lua, GSUB_SUBJECT, &len);
	const char *pattern = luaL_checkstring(lua, GSUB_PATTERN);
	int type = lua_type(lua, GSUB_REPLACEMENT);
	int max = (int)luaL_optinteger(lua, GSUB_MAX, (lua_Integer)len + 1);
	bool anchored = *pattern == '^';
	bool calls_back = type == LUA_TFUNCTION || type == LUA_TTABLE;
	if (!calls_back && type != LUA_TSTRING && type != LUA_TNUMBER)
		luaL_argerror(lua, GSUB_REPLACEMENT, "string/function/table expected");
	unsigned outer = 0;
	if (calls_back)
		outer = enter_gsub(lua, strings_of(lua), (uintptr_t)__builtin_frame_address(0));
	lua_settop(lua, GSUB_BUFFER);
	result_init(&result, lua);
	search_init(&search, lua, subject, len, pattern + anchored);
	int n = replace(&search, &result, max, anchored);
	/* With none replaced it is the subject itself. */
	if (n)
		lua_pushlstring(lua, result.data, result.len);
	else
		lua_pushvalue(lua, GSUB_SUBJECT);
	lua_pushinteger(lua, n);
	if (calls_back)
		result.strings->nested = outer;
	return 2;
}

/* ---- the table ---- */

/* MAY RAISE. limit_results(bytes): how large a result of gsub may become. */
static int l_strings_limit_results(lua_State *lua)
{
	lua_Number bytes = luaL_checknumber(lua, 1);
	luaL_argcheck(lua, bytes >= 0, 1, "negative");
	strings_of(lua)->result_max = bytes < (lua_Number)INT_MAX ? (size_t)bytes : INT_MAX;
	return 0;
}

static const luaL_Reg FUNCTIONS[] = {
	{ "find", l_find },
	{ "match", l_match },
	{ "gmatch_next", l_gmatch_next },
	{ "gmatch_check", l_gmatch_check },
	{ "gsub", l_gsub },
	{ "limit_results", l_strings_limit_results },
	{ NULL, NULL },
};

void bind_strings(lua_State *lua)
{
	lua_newtable(lua);
	struct strings *strings = lua_newuserdata(lua, sizeof *strings);
	*strings = (struct strings){ .stop = &vm_of(lua)->guard.verdict, .result_max = INT_MAX };
	for (const luaL_Reg *function = FUNCTIONS; function->name; function++) {
		lua_pushvalue(lua, -1);
		lua_pushcclosure(lua, function->func, 1);
		lua_setfield(lua, -3, function->name);
	}
	lua_pop(lua, 1);
}
