/* How texts are shown: by the table in spec/support/text_cases.lua. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/text.h"

#include <lauxlib.h>
#include <lualib.h>
#include <stdlib.h>
#include <string.h>

static lua_State *lua;

/* escape(form, bytes [, size]) */
static int l_escape(lua_State *l)
{
	static const char *const FORMS[] = { "line", "lines", "json", NULL };
	enum text_form form = (enum text_form)luaL_checkoption(l, 1, NULL, FORMS);
	size_t n, size = (size_t)luaL_optinteger(l, 3, 4096);
	const char *bytes = luaL_checklstring(l, 2, &n);
	char *to = malloc(size); /* exactly: for ASan to see */
	size_t len = text_escape(form, to, size, bytes, n);
	assert_int_equal(strlen(to), len);
	lua_pushlstring(l, to, len);
	free(to);
	return 1;
}

/* put(form, bytes): by way of a stream. */
static int l_put(lua_State *l)
{
	static const char *const FORMS[] = { "line", "lines", "json", NULL };
	char *text = NULL;
	size_t n, len = 0;
	const char *bytes = luaL_checklstring(l, 2, &n);
	FILE *to = open_memstream(&text, &len);
	text_put(to, (enum text_form)luaL_checkoption(l, 1, NULL, FORMS), bytes, n);
	fclose(to);
	lua_pushlstring(l, text, len);
	free(text);
	return 1;
}

/* is_utf8(bytes): of a copy that ends where they end, without a terminator. */
static int l_is_utf8(lua_State *l)
{
	size_t n;
	const char *bytes = luaL_checklstring(l, 1, &n);
	char *copy = malloc(n + !n);
	memcpy(copy, bytes, n);
	lua_pushboolean(l, text_is_utf8(copy, n));
	free(copy);
	return 1;
}

static int open_lua(void **state)
{
	(void)state;
	lua = luaL_newstate();
	luaL_openlibs(lua);
	lua_register(lua, "escape", l_escape);
	lua_register(lua, "put", l_put);
	lua_register(lua, "is_utf8", l_is_utf8);
	return luaL_dostring(
	    lua, "package.path = './?.lua;' .. package.path\n"
		 "cases = require 'spec.support.text_cases'\n"
		 "function same(wanted, got, what)\n"
		 "  if wanted ~= got then\n"
		 "    error(('%s: %q, not %q'):format(what, tostring(got), tostring(wanted)), 2)\n"
		 "  end\n"
		 "end\n");
}

static int close_lua(void **state)
{
	(void)state;
	lua_close(lua);
	return 0;
}

static void run(const char *code)
{
	if (luaL_dostring(lua, code))
		fail_msg("%s", lua_tostring(lua, -1));
	lua_settop(lua, 0);
}

static void each_case_is_shown_as_the_table_has_it(void **state)
{
	(void)state;
	run("assert(#cases > 40)\n"
	    "for _, case in ipairs(cases) do\n"
	    "  for _, form in ipairs { 'line', 'lines', 'json' } do\n"
	    "    same(case[form], escape(form, case.bytes), case.name)\n"
	    "    same(case[form], put(form, case.bytes), case.name)\n"
	    "  end\n"
	    "  same(case.line, escape('line', case.line), case.name .. ', twice')\n"
	    "  same(case.is_utf8, is_utf8(case.bytes), case.name)\n"
	    "end");
}

static void what_does_not_fit_is_cut_between_characters(void **state)
{
	(void)state;
	run("for _, case in ipairs(cases) do\n"
	    "  for _, form in ipairs { 'line', 'lines', 'json' } do\n"
	    "    local long = (case.bytes .. '.'):rep(20)\n"
	    "    local whole = escape(form, long)\n"
	    "    same(whole, escape(form, long, #whole + 1), case.name)\n"
	    "    for size = 4, #whole do\n"
	    "      local cut = escape(form, long, size)\n"
	    "      assert(#cut < size and cut:sub(-3) == '\\226\\128\\166', case.name)\n"
	    "      same(whole:sub(1, #cut - 3), cut:sub(1, -4), case.name)\n"
	    "      assert(is_utf8(cut), case.name)\n"
	    "      assert(size - #cut <= 16, case.name)\n"
	    "    end\n"
	    "  end\n"
	    "end");
}

static void any_bytes_are_shown_as_characters(void **state)
{
	(void)state;
	run("local seed = 20260301\n"
	    "local function byte()\n"
	    "  seed = (seed * 16807) % 2147483647\n"
	    "  return string.char(seed % 3 == 0 and seed % 256 or 0x80 + seed % 128)\n"
	    "end\n"
	    "for _ = 1, 20000 do\n"
	    "  local bytes = {}\n"
	    "  for i = 1, seed % 12 do bytes[i] = byte() end\n"
	    "  byte()\n"
	    "  local text = table.concat(bytes)\n"
	    "  for _, form in ipairs { 'line', 'lines', 'json' } do\n"
	    "    local shown = escape(form, text)\n"
	    "    assert(is_utf8(shown))\n"
	    "    assert(not shown:find(form == 'lines' and '[%z\\1-\\8\\11-\\31\\127]' or "
	    "'[%z\\1-\\31\\127]'))\n"
	    "    assert(not shown:find('\\194[\\128-\\159]'))\n"
	    "  end\n"
	    "end");
}

static void a_format_is_shown_whatever_its_length(void **state)
{
	(void)state;
	char *text = NULL, name[4000];
	size_t len = 0;
	memset(name, 'x', sizeof name - 1);
	name[sizeof name - 1] = '\0';
	FILE *to = open_memstream(&text, &len);
	text_printf(to, "no '%s'\n%s", "\x1b[2J", name);
	fclose(to);
	assert_memory_equal(text, "no '\\x1b[2J'\nxxx", 16);
	assert_int_equal(len, 13 + sizeof name - 1);
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_case_is_shown_as_the_table_has_it),
		cmocka_unit_test(what_does_not_fit_is_cut_between_characters),
		cmocka_unit_test(any_bytes_are_shown_as_characters),
		cmocka_unit_test(a_format_is_shown_whatever_its_length),
	};
	return cmocka_run_group_tests_name("text", tests, open_lua, close_lua);
}
