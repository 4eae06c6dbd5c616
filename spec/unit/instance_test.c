/* An instance with a role of this test's own: a script in a VM, and nothing that connections are served with. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/log.h"
#include "bind/bind.h"
#include "config/config.h"
#include "script/instance.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

enum { WORKER = 2, GENERATION = 7, WORKERS = 3 };

static const struct vm_budget AMPLE = { .ms = 5000 }, SHORT = { .ms = 10 };

static char path[64], why[2048];
static char said[1024];   /* what the script has logged, a line each */
static char logged[4096]; /* what Perilune has: messages, and their fields that are texts, a line each */
static struct config *config;
static struct instance instance;

/* ---- the role ---- */

enum { KEPT_MARK = 1, KEPT_PROCEED };

static void lay_out(lua_State *lua)
{
	lua_pushliteral(lua, "mark");
	lua_pushnil(lua); /* KEPT_PROCEED */
}

static void append(char *to, size_t size, const char *text)
{
	size_t n = strlen(to);
	snprintf(to + n, size - n, "%s\n", text);
}

/* log(level, message) */
static int l_say(lua_State *lua)
{
	append(said, sizeof said, luaL_checkstring(lua, 2));
	return 0;
}

static void push_core(lua_State *lua)
{
	lua_newtable(lua);
	lua_pushcfunction(lua, l_say);
	lua_setfield(lua, -2, "log");
}

static void keep_proceed(lua_State *lua)
{
	lua_getfield(lua, -1, "listeners");
	lua_rawgeti(lua, -1, 1);
	lua_getfield(lua, -1, "agent");
	lua_getfield(lua, -1, "proceed");
	lua_replace(lua, KEPT_PROCEED);
	lua_pop(lua, 3);
	append(said, sizeof said, "the role");
}

static uint32_t least_ms(const struct config *of)
{
	assert_ptr_equal(of, config);
	return SHORT.ms;
}

static const struct instance_role ROLE = {
	.lay_out = lay_out,
	.kept = KEPT_PROCEED,
	.push_core = push_core,
	.take_conf = keep_proceed,
	.least_ms = least_ms,
};

/* ---- scripts ---- */

static void take_logged(struct log_sink *sink, const struct log_entry *entry)
{
	(void)sink;
	append(logged, sizeof logged, entry->message);
	for (size_t i = 0; i < entry->count; i++)
		if (entry->fields[i].kind == LOG_IS_TEXT)
			append(logged, sizeof logged, entry->fields[i].text);
}

static struct log_sink sink = { take_logged };

static void write_script(const char *text)
{
	FILE *file = fopen(path, "w");
	assert_non_null(file);
	fputs(text, file);
	fclose(file);
}

/* No more than an instance needs: a script that is at fault has no configuration. */
static void configure(void)
{
	config = calloc(1, sizeof *config);
	assert_non_null(config);
	config_hold(config);
	config->script = strdup(path);
	config->workers = WORKERS;
	config->garbage_share = VM_PACE_DEFAULT.garbage;
	config->jit = true;
	assert_int_equal(config_read(config), 0);
}

static int open_with(const struct instance_role *role, const char *text)
{
	write_script(text);
	configure();
	*said = *logged = *why = '\0';
	log_divert(&sink);
	return instance_open(&instance, role, config, WORKER, GENERATION, why, sizeof why);
}

static void open_script(const char *text)
{
	int err = open_with(&ROLE, text);
	if (err)
		fail_msg("%d: %s", err, why);
}

static bool close_script(uint32_t teardown_ms)
{
	bool done = instance_close(&instance, teardown_ms);
	config_drop(config);
	log_divert(NULL);
	return done;
}

/* Asserts that the script is refused, and that `place` is in the explanation. */
static void refuse(const struct instance_role *role, const char *text, const char *place)
{
	assert_int_equal(open_with(role, text), UV_EINVAL);
	assert_non_null(strstr(why, place));
	assert_null(instance.vm.lua);
	config_drop(config);
	log_divert(NULL);
}

/* proceed(nil, n) → its result, or -1. */
static lua_Number call_proceed(lua_Number n, const struct vm_budget *budget)
{
	lua_State *lua = instance.vm.lua;
	lua_pushvalue(lua, KEPT_PROCEED);
	lua_pushnil(lua);
	lua_pushnumber(lua, n);
	int failed = vm_pcall(&instance.vm, lua, 2, 1, budget);
	lua_Number result = failed ? -1 : lua_tonumber(lua, -1);
	lua_pop(lua, 1);
	return result;
}

#define RETURNS(proceed, more)                                                                               \
	"local perilune = require 'perilune'\n"                                                              \
	"local function say(...) perilune.log('info', table.concat({ ... }, ' ')) end\n"                     \
	"say 'top level'\n"                                                                                  \
	"return { listen = 'tcp://127.0.0.1:0', agent = { proceed = function(_, n) " proceed " end }, " more \
	" }\n"
#define SETUP "setup = function(app) say('setup', app.worker, app.workers, app.generation) end"
#define TEARDOWN "teardown = function(app) say('teardown', app.worker, app.workers, app.generation) end"

/* ---- what it does ---- */

static void a_script_runs_from_its_top_level_to_its_teardown(void **state)
{
	(void)state;
	open_script(RETURNS("return n", SETUP ", " TEARDOWN));
	assert_string_equal(said, "top level\nthe role\nsetup 2 3 7\n");
	assert_true(close_script(VM_TEARDOWN_MS));
	assert_string_equal(said, "top level\nthe role\nsetup 2 3 7\nteardown 2 3 7\n");
	assert_string_equal(logged, "");
}

static void a_teardown_can_be_left_out_and_need_not_be_there(void **state)
{
	(void)state;
	open_script(RETURNS("return n", TEARDOWN));
	assert_false(close_script(0));
	assert_string_equal(said, "top level\nthe role\n");
	open_script(RETURNS("return n", ""));
	assert_true(close_script(0));
}

static void its_vm_keeps_what_the_role_lays_out(void **state)
{
	(void)state;
	open_script(RETURNS("return n", SETUP));
	lua_State *lua = instance.vm.lua;
	assert_int_equal(lua_gettop(lua), KEPT_PROCEED);
	assert_string_equal(lua_tostring(lua, KEPT_MARK), "mark");
	assert_true(lua_isfunction(lua, KEPT_PROCEED));
	assert_ptr_equal(instance_of(lua), &instance);
	close_script(VM_TEARDOWN_MS);
}

static void its_functions_can_be_called_within_a_budget(void **state)
{
	(void)state;
	open_script(RETURNS("while n == 0 do end return n * 2", ""));
	assert_int_equal(instance.vm.guard.least_ms, SHORT.ms);
	assert_int_equal(call_proceed(21, &AMPLE), 42);
	assert_int_equal(call_proceed(0, &SHORT), -1);
	assert_int_equal(instance.vm.verdict, GUARD_CPU);
	assert_int_equal(call_proceed(4, &AMPLE), 8);
	assert_int_equal(lua_gettop(instance.vm.lua), KEPT_PROCEED);
	close_script(VM_TEARDOWN_MS);
}

static void *call_from_another(void *result)
{
	instance_attach(&instance);
	*(lua_Number *)result = call_proceed(21, &AMPLE);
	instance_detach(&instance);
	return NULL;
}

static void it_may_go_to_another_thread_and_come_back(void **state)
{
	(void)state;
	pthread_t thread;
	lua_Number result = 0;
	open_script(RETURNS("return n * 2", TEARDOWN));
	instance_detach(&instance);
	assert_int_equal(pthread_create(&thread, NULL, call_from_another, &result), 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(result, 42);
	assert_true(close_script(VM_TEARDOWN_MS)); /* by a thread that has not attached it */
	assert_non_null(strstr(said, "teardown"));
}

static void a_role_may_have_nothing_to_add(void **state)
{
	(void)state;
	static const struct instance_role NOTHING = { 0 };
	static const char SCRIPT[] = "assert(not pcall(require('perilune').log, 'info', 'nobody takes it'))\n"
				     "return { listen = 'tcp://127.0.0.1:0', agent = function() end }\n";
	assert_int_equal(open_with(&NOTHING, SCRIPT), 0);
	assert_int_equal(lua_gettop(instance.vm.lua), 0);
	assert_int_equal(instance.vm.guard.least_ms, VM_TEARDOWN_MS);
	assert_true(close_script(VM_TEARDOWN_MS));
}

/* ---- what goes wrong ---- */

static void a_faulty_script_is_refused_with_its_place(void **state)
{
	(void)state;
	refuse(&ROLE, "local x = = 1\n", "instance.lua:1");
	refuse(&ROLE, "local t\n\nreturn t.field\n", "instance.lua:3");
	refuse(&ROLE, "return { listen = 'nowhere' }\n", "listen");
	assert_string_equal(said, "");
}

static void a_faulty_setup_is_refused_after_a_teardown(void **state)
{
	(void)state;
	refuse(&ROLE, RETURNS("return n", "setup = function(app)\nerror 'no database'\nend, " TEARDOWN),
	       "instance.lua:5");
	assert_non_null(strstr(why, "no database"));
	assert_string_equal(said, "top level\nthe role\nteardown 2 3 7\n");
}

static void refuse_conf(lua_State *lua)
{
	luaL_error(lua, "of no use here");
}

static void what_the_role_raises_refuses_the_script(void **state)
{
	(void)state;
	static const struct instance_role STRICT = { .push_core = push_core, .take_conf = refuse_conf };
	refuse(&STRICT, RETURNS("return n", SETUP ", " TEARDOWN), "of no use here");
	assert_string_equal(said, "top level\n");
}

static void a_faulty_teardown_is_logged_with_its_place(void **state)
{
	(void)state;
	open_script(RETURNS("return n", "teardown = function()\nerror 'too late'\nend"));
	assert_true(close_script(VM_TEARDOWN_MS));
	assert_non_null(strstr(logged, "teardown failed\n"));
	assert_non_null(strstr(logged, "too late\n"));
	assert_non_null(strstr(logged, "instance.lua#g7:5\n"));
}

static void a_finaliser_that_is_ended_at_the_close_is_logged(void **state)
{
	(void)state;
	open_script("local kept = newproxy(true)\n"
		    "getmetatable(kept).__gc = function() while true do end end\n"
		    "return { listen = 'tcp://127.0.0.1:0', unsafe = { 'newproxy' },\n"
		    "  agent = { proceed = function() return kept end } }\n");
	assert_true(close_script(VM_TEARDOWN_MS));
	assert_non_null(strstr(logged, "a finaliser failed\n"));
	assert_non_null(strstr(logged, "instance.lua#g7:2"));
}

/* ---- all of it ---- */

static char root[] = "/tmp/perilune-spec-XXXXXX";

static int make_folder(void **state)
{
	(void)state;
	if (!mkdtemp(root))
		return -1;
	snprintf(path, sizeof path, "%s/instance.lua", root);
	return 0;
}

static int remove_folder(void **state)
{
	(void)state;
	return unlink(path) || rmdir(root);
}

int main(void)
{
	char pattern[4096];
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_script_runs_from_its_top_level_to_its_teardown),
		cmocka_unit_test(a_teardown_can_be_left_out_and_need_not_be_there),
		cmocka_unit_test(its_vm_keeps_what_the_role_lays_out),
		cmocka_unit_test(its_functions_can_be_called_within_a_budget),
		cmocka_unit_test(it_may_go_to_another_thread_and_come_back),
		cmocka_unit_test(a_role_may_have_nothing_to_add),
		cmocka_unit_test(a_faulty_script_is_refused_with_its_place),
		cmocka_unit_test(a_faulty_setup_is_refused_after_a_teardown),
		cmocka_unit_test(what_the_role_raises_refuses_the_script),
		cmocka_unit_test(a_faulty_teardown_is_logged_with_its_place),
		cmocka_unit_test(a_finaliser_that_is_ended_at_the_close_is_logged),
	};
	if (vm_find_lua_path(pattern, sizeof pattern))
		return 1;
	vm_set_lua_path(pattern);
	vm_set_libraries(BIND_LIBRARIES);
	int failed = cmocka_run_group_tests_name("instance", tests, make_folder, remove_folder);
	guard_stop();
	return failed;
}
