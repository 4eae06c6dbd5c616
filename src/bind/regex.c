/*
 * Perl's regular expressions, as `ngx.re` of drivers has them, by PCRE2. Their Lua side is lua/perilune/compat/re.lua.
 *
 * PCRE2 backtracks where nothing can interrupt it, and its own limit counts anew wherever a match may begin. So each
 * item of a pattern calls back, which counts, and looks whether the call has to end. Between two of these it goes
 * through the subject once at most.
 *
 * All memory belongs to userdata, so that whatever raises leaves none behind.
 */
#include "base/pattern.h"
#include "bind/bind.h"
#include "vm/vm.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#define REGEX_META "perilune.regex"
#define MATCHER_META "perilune.matcher"

enum {
	REGEX_STEPS = 1000000, /* a call's budget: some 50 to 100 ms */
	REGEX_STEPS_PER_BYTE = 16,
	REGEX_HEAP_KIB = 8192,
	REGEX_PATTERN_MAX = 32768
};

struct regex {
	pcre2_code *code;
	uint32_t groups; /* the whole match among them */
};

/* A VM's: the upvalue of what matches. */
struct matcher {
	pcre2_match_context *context;
	pcre2_match_data *data;
	uint32_t pairs; /* that data has room for */
	int64_t steps;  /* that are left */
	size_t at;      /* of the subject, at the last item */
	const volatile sig_atomic_t *stop;
};

static int l_regex_gc(lua_State *lua)
{
	struct regex *regex = lua_touserdata(lua, 1);
	pcre2_code_free(regex->code);
	regex->code = NULL;
	return 0;
}

/* MAY RAISE. free(regex): at once, since the collector does not know how much memory it is. */
static int l_regex_free(lua_State *lua)
{
	luaL_checkudata(lua, 1, REGEX_META);
	return l_regex_gc(lua);
}

static int l_matcher_gc(lua_State *lua)
{
	struct matcher *matcher = lua_touserdata(lua, 1);
	pcre2_match_data_free(matcher->data);
	pcre2_match_context_free(matcher->context);
	matcher->data = NULL;
	matcher->context = NULL;
	return 0;
}

/* ---- compiling ---- */

/* MAY RAISE. Those that say how something is kept or compiled change nothing here. */
static uint32_t read_flags(lua_State *lua, const char *flags)
{
	uint32_t options = PCRE2_AUTO_CALLOUT;
	for (; *flags; flags++)
		switch (*flags) {
		case 'a':
			options |= PCRE2_ANCHORED;
			break;
		case 'i':
			options |= PCRE2_CASELESS;
			break;
		case 'm':
			options |= PCRE2_MULTILINE;
			break;
		case 's':
			options |= PCRE2_DOTALL;
			break;
		case 'x':
			options |= PCRE2_EXTENDED;
			break;
		case 'D':
			options |= PCRE2_DUPNAMES;
			break;
		case 'J':
			options |= PCRE2_ALT_BSUX | PCRE2_MATCH_UNSET_BACKREF;
			break;
		case 'U': /* the text is checked all the same: what is not UTF-8 could crash the process */
		case 'u':
			options |= PCRE2_UTF;
			break;
		case 'j':
		case 'o':
			break;
		case 'd':
			RAISE(lua, "the flag \"d\" is not there: matches are Perl's");
		default:
			RAISE(lua, "unknown flag \"%c\" (flags \"%s\")", *flags, flags);
		}
	return options;
}

static int push_failure(lua_State *lua, int err)
{
	PCRE2_UCHAR text[128];
	if (pcre2_get_error_message(err, text, sizeof text) < 0)
		snprintf((char *)text, sizeof text, "error %d", err);
	lua_pushnil(lua);
	lua_pushstring(lua, (const char *)text);
	return 2;
}

/* MAY RAISE. compile(pattern, flags) → regex, groups | nil, message, at */
static int l_regex_compile(lua_State *lua)
{
	size_t len, at;
	int err;
	const char *pattern = luaL_checklstring(lua, 1, &len);
	uint32_t options = read_flags(lua, luaL_checkstring(lua, 2));
	luaL_argcheck(lua, len <= REGEX_PATTERN_MAX, 1, "the pattern is too long");
	struct regex *regex = lua_newuserdata(lua, sizeof *regex);
	regex->code = NULL;
	luaL_getmetatable(lua, REGEX_META);
	lua_setmetatable(lua, -2);
	regex->code = pcre2_compile((PCRE2_SPTR)pattern, len, options, &err, &at, NULL);
	if (!regex->code) {
		push_failure(lua, err);
		lua_pushnumber(lua, (lua_Number)at);
		return 3;
	}
	pcre2_pattern_info(regex->code, PCRE2_INFO_CAPTURECOUNT, &regex->groups);
	regex->groups++;
	lua_pushinteger(lua, (lua_Integer)regex->groups);
	return 2;
}

/* MAY RAISE. names(regex) → a list of name, number of a group, name … */
static int l_regex_names(lua_State *lua)
{
	const struct regex *regex = luaL_checkudata(lua, 1, REGEX_META);
	uint32_t count = 0, size = 0;
	PCRE2_SPTR table = NULL;
	lua_newtable(lua);
	if (!regex->code)
		return 1;
	pcre2_pattern_info(regex->code, PCRE2_INFO_NAMECOUNT, &count);
	pcre2_pattern_info(regex->code, PCRE2_INFO_NAMEENTRYSIZE, &size);
	pcre2_pattern_info(regex->code, PCRE2_INFO_NAMETABLE, &table);
	for (uint32_t i = 0; i < count; i++, table += size) {
		lua_pushstring(lua, (const char *)table + 2);
		lua_rawseti(lua, -2, (int)(2 * i + 1));
		lua_pushinteger(lua, table[0] << 8 | table[1]);
		lua_rawseti(lua, -2, (int)(2 * i + 2));
	}
	return 1;
}

/* ---- matching ---- */

/* What was run over since the last item is counted as well: bytes are cheaper than items. */
static int on_item(pcre2_callout_block *block, void *data)
{
	enum { BYTES_PER_STEP = 8 };
	struct matcher *matcher = data;
	size_t at = block->current_position, before = matcher->at;
	matcher->at = at;
	matcher->steps -= 1 + (int64_t)((at > before ? at - before : before - at) / BYTES_PER_STEP);
	if (*matcher->stop)
		return PCRE2_ERROR_CALLOUT;
	return matcher->steps < 0 ? PCRE2_ERROR_MATCHLIMIT : 0;
}

/* False: no memory. */
static bool reserve_pairs(struct matcher *matcher, uint32_t pairs)
{
	if (!matcher->context) {
		matcher->context = pcre2_match_context_create(NULL);
		if (!matcher->context)
			return false;
		pcre2_set_callout(matcher->context, on_item, matcher);
		pcre2_set_heap_limit(matcher->context, REGEX_HEAP_KIB);
	}
	if (matcher->pairs >= pairs)
		return true;
	pcre2_match_data_free(matcher->data);
	matcher->data = pcre2_match_data_create(pairs, NULL);
	matcher->pairs = matcher->data ? pairs : 0;
	return matcher->data != NULL;
}

/* MAY RAISE. The first and the last byte of each group, or nothing, become items of the table at idx. */
static void fill_places(lua_State *lua, int idx, const pcre2_match_data *data, uint32_t set, uint32_t groups)
{
	const PCRE2_SIZE *places = pcre2_get_ovector_pointer((pcre2_match_data *)data);
	for (uint32_t i = 0; i < groups; i++) {
		bool is_set = i < set && places[2 * i] != PCRE2_UNSET;
		for (uint32_t k = 0; k < 2; k++) {
			if (is_set)
				lua_pushnumber(lua, (lua_Number)(places[2 * i + k] + (k ? 0 : 1)));
			else
				lua_pushboolean(lua, 0);
			lua_rawseti(lua, idx, (int)(2 * i + k + 1));
		}
	}
}

/* MAY RAISE. match(regex, subject, position, places) → true: the table has them | false: none | nil, message */
static int l_regex_match(lua_State *lua)
{
	size_t len;
	struct matcher *matcher = lua_touserdata(lua, lua_upvalueindex(1));
	const struct regex *regex = luaL_checkudata(lua, 1, REGEX_META);
	const char *subject = luaL_checklstring(lua, 2, &len);
	lua_Number position = luaL_checknumber(lua, 3);
	luaL_checktype(lua, 4, LUA_TTABLE);
	if (!regex->code)
		return luaL_error(lua, "this pattern was freed");
	if (!(position >= 1 && position <= (lua_Number)len + 1)) {
		lua_pushboolean(lua, 0);
		return 1;
	}
	if (!reserve_pairs(matcher, regex->groups))
		return luaL_error(lua, "not enough memory");
	matcher->steps = REGEX_STEPS + REGEX_STEPS_PER_BYTE * (int64_t)len;
	matcher->at = (size_t)position - 1;
	int found = pcre2_match(regex->code, (PCRE2_SPTR)subject, len, (size_t)position - 1, 0, matcher->data,
				matcher->context);
	if (found == PCRE2_ERROR_CALLOUT)
		return luaL_error(lua, "%s", pattern_message(PATTERN_STOPPED));
	if (found < 0 && found != PCRE2_ERROR_NOMATCH)
		return push_failure(lua, found);
	if (found > 0)
		fill_places(lua, 4, matcher->data, (uint32_t)found, regex->groups);
	lua_pushboolean(lua, found > 0);
	return 1;
}

static void new_metatable(lua_State *lua, const char *name, lua_CFunction gc)
{
	luaL_newmetatable(lua, name);
	lua_pushcfunction(lua, gc);
	lua_setfield(lua, -2, "__gc");
	lua_pushstring(lua, name);
	lua_setfield(lua, -2, "__metatable");
}

/* MAY RAISE. open() → compile, names, free, match: made where they are wanted, since they have what must be freed */
static int l_regex_open(lua_State *lua)
{
	new_metatable(lua, REGEX_META, l_regex_gc);
	lua_pop(lua, 1);
	lua_pushcfunction(lua, l_regex_compile);
	lua_pushcfunction(lua, l_regex_names);
	lua_pushcfunction(lua, l_regex_free);
	struct matcher *matcher = lua_newuserdata(lua, sizeof *matcher);
	*matcher = (struct matcher){ .stop = &vm_of(lua)->guard.verdict };
	new_metatable(lua, MATCHER_META, l_matcher_gc);
	lua_setmetatable(lua, -2);
	lua_pushcclosure(lua, l_regex_match, 1);
	return 4;
}

void bind_drivers(lua_State *lua)
{
	lua_createtable(lua, 0, 3);
	lua_pushcfunction(lua, l_regex_open);
	lua_setfield(lua, -2, "open_regex");
	bind_push_loose_base64(lua);
	lua_setfield(lua, -2, "decode_base64");
	lua_pushlightuserdata(lua, NULL); /* as other modules have it, lua-cjson among them */
	lua_setfield(lua, -2, "null");
}
