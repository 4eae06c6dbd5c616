/* What config_read_outgoing() makes of a canonical table, and of files that are not there. */
#include "config/tls.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "config/config.h"
#include "tls/outgoing.h"

#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char folder[] = "/tmp/tls_files_XXXXXX";
static struct config config;
static lua_State *lua;

static int files_begin(void **state)
{
	char path[64];
	(void)state;
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof path, "%s/app.lua", folder);
	config.script = strdup(path);
	snprintf(path, sizeof path, "%s/ca.pem", folder);
	FILE *file = fopen(path, "w");
	assert_non_null(file);
	fputs("an authority", file);
	fclose(file);
	lua = luaL_newstate();
	assert_non_null(lua);
	return 0;
}

static int files_end(void **state)
{
	char path[64];
	(void)state;
	snprintf(path, sizeof path, "%s/ca.pem", folder);
	unlink(path);
	rmdir(folder);
	free(config.script);
	lua_close(lua);
	return 0;
}

/* The table of that text is on top of the stack. */
static void push_table(const char *text)
{
	lua_settop(lua, 0);
	assert_int_equal(luaL_dostring(lua, text), 0);
}

static void a_table_becomes_data(void **state)
{
	(void)state;
	struct tls_outgoing outgoing;
	char why[256];
	push_table("return { server_name = 'db.example', verify = true, authority = 'ca.pem', alpn = { 'h2', "
		   "'chat' },"
		   " min = '1.3', min_version = 0x0304, ciphers = 'A:B' }");
	assert_null(config_read_outgoing(lua, &config, &outgoing, why, sizeof why));
	assert_int_equal(lua_gettop(lua), 1);
	assert_string_equal(outgoing.server_name, "db.example");
	assert_true(outgoing.verify);
	assert_string_equal(outgoing.authority.path, "ca.pem");
	assert_int_equal(outgoing.authority.count, 12);
	assert_memory_equal(outgoing.authority.bytes, "an authority", 12);
	assert_null(outgoing.pair.certificate.path);
	assert_int_equal(outgoing.alpn_bytes, 8);
	assert_memory_equal(outgoing.alpn, "\2h2\4chat", 8);
	assert_int_equal(outgoing.min_version, 0x0304);
	assert_string_equal(outgoing.ciphers, "A:B");
	tls_outgoing_deinit(&outgoing);
}

static void the_shortest_is_enough(void **state)
{
	(void)state;
	struct tls_outgoing outgoing;
	char why[256];
	push_table("return { server_name = '::1', verify = false, alpn = {}, min_version = 0x0303 }");
	assert_null(config_read_outgoing(lua, &config, &outgoing, why, sizeof why));
	assert_false(outgoing.verify);
	assert_null(outgoing.authority.bytes);
	assert_null(outgoing.alpn);
	assert_null(outgoing.ciphers);
	tls_outgoing_deinit(&outgoing);
}

static void a_file_that_cannot_be_read_is_named(void **state)
{
	(void)state;
	struct tls_outgoing outgoing;
	char why[256];
	push_table("return { server_name = 'a', verify = true, authority = 'ca.pem', certificate = "
		   "'none.pem', key = '.',"
		   " alpn = {}, min_version = 0x0303 }");
	assert_non_null(config_read_outgoing(lua, &config, &outgoing, why, sizeof why));
	assert_string_equal(why, "none.pem cannot be read: No such file or directory");
	assert_int_equal(lua_gettop(lua), 1);
	assert_null(outgoing.server_name);
	assert_null(outgoing.authority.bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_table_becomes_data),
		cmocka_unit_test(the_shortest_is_enough),
		cmocka_unit_test(a_file_that_cannot_be_read_is_named),
	};
	return cmocka_run_group_tests(tests, files_begin, files_end);
}
