#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "bind/bind.h"
#include "workbench/script.h"
#include "workbench/world.h"

#include <stdlib.h>
#include <string.h>

static struct config *load(void)
{
	char *text;
	const struct override overrides[] = { { (char *)"timeout.idle", (char *)"5m", (char *)"test" },
					      { (char *)"workers", (char *)"2", (char *)"test" } };
	const struct script script = { .path = "examples/echo.lua",
				       .overrides = overrides,
				       .override_count = 2 };
	struct config *config = script_load(&script, &text);
	assert_non_null(config);
	return config;
}

static void open_world(struct world *world)
{
	char why[1024];
	struct config *config = load();
	assert_true(world_open(world, config, NULL, why, sizeof why));
	config_drop(config);
}

static void close_world(struct world *world)
{
	world_close(world);
	world_free_log(world);
	script_forget();
}

static void put(struct peer *peer, const char *text)
{
	memory_stream_put(&peer->memory, text, strlen(text));
}

static void a_client_gets_frames_with_their_times(void **state)
{
	(void)state;
	static struct world world;
	struct batch batch;
	open_world(&world);
	struct peer *peer = world_connect(&world, 0, &(struct world_way){ 0 });
	put(peer, "one\n");
	assert_int_equal(world_settle(&world), WORLD_QUIET);
	assert_int_equal(world_advance(&world, WORLD_BEGIN_MS + 50), WORLD_QUIET);
	put(peer, "two\n");
	assert_int_equal(world_settle(&world), WORLD_QUIET);
	assert_int_equal(peer_next_frame(peer, &batch), 1);
	assert_memory_equal(batch.frames[0].data, "one", 3);
	assert_int_equal(peer_time_of(peer, peer->taken_bytes - 1), WORLD_BEGIN_MS);
	assert_int_equal(peer_next_frame(peer, &batch), 1);
	assert_memory_equal(batch.frames[0].data, "two", 3);
	assert_int_equal(peer_time_of(peer, peer->taken_bytes - 1), WORLD_BEGIN_MS + 50);
	assert_int_equal(peer_next_frame(peer, &batch), 0);
	close_world(&world);
}

static void time_ends_a_silent_connection_to_the_millisecond(void **state)
{
	(void)state;
	static struct world world;
	open_world(&world);
	struct peer *peer = world_connect(&world, 0, &(struct world_way){ 0 });
	assert_int_equal(world_advance(&world, WORLD_BEGIN_MS + 300000 - 1), WORLD_QUIET);
	assert_int_equal(peer_reason(peer), REASON_NONE);
	assert_int_equal(world_advance(&world, WORLD_BEGIN_MS + 300000), WORLD_QUIET);
	assert_int_equal(peer_reason(peer), REASON_IDLE_TIMEOUT);
	assert_true(peer->gone && peer->end_seen);
	assert_int_equal(peer->ended_ms, WORLD_BEGIN_MS + 300000);
	assert_null(world.workers[0].live);
	close_world(&world);
}

static void whoever_writes_to_one_that_hung_up_gets_a_reset(void **state)
{
	(void)state;
	static struct world world;
	open_world(&world);
	struct peer *peer = world_connect(&world, 0, &(struct world_way){ 0 });
	put(peer, "x\n");
	peer_hang_up(peer);
	assert_int_equal(world_settle(&world), WORLD_QUIET);
	assert_true(peer->gone);
	assert_int_equal(peer->received_bytes, 0);
	close_world(&world);
}

static void each_worker_has_its_own_clients(void **state)
{
	(void)state;
	static struct world world;
	open_world(&world);
	assert_int_equal(world.worker_count, 2);
	for (unsigned i = 0; i < 4; i++) {
		struct peer *peer = world_connect(&world, 0, &(struct world_way){ 0 });
		assert_ptr_equal(peer->worker, &world.workers[i % 2]);
		assert_int_equal(peer->id, i + 1);
	}
	world.workers[0].is_stalled = true;
	struct peer *peer = world_connect(&world, 0, &(struct world_way){ .to = &world.workers[0] });
	put(peer, "x\n");
	assert_int_equal(world_settle(&world), WORLD_QUIET);
	assert_int_equal(peer->received_bytes, 0);
	world.workers[0].is_stalled = false;
	assert_int_equal(world_settle(&world), WORLD_QUIET);
	assert_int_equal(peer->received_bytes, 2);
	assert_int_equal(world.workers[0].load, 3);
	close_world(&world);
}

static void the_same_script_is_loaded_once(void **state)
{
	(void)state;
	struct config *first = load(), *second = load();
	assert_ptr_equal(first, second);
	script_forget();
	struct config *third = load();
	assert_ptr_not_equal(first, third);
	config_drop(first);
	config_drop(second);
	config_drop(third);
	script_forget();
}

int main(void)
{
	char pattern[4096];
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_client_gets_frames_with_their_times),
		cmocka_unit_test(time_ends_a_silent_connection_to_the_millisecond),
		cmocka_unit_test(whoever_writes_to_one_that_hung_up_gets_a_reset),
		cmocka_unit_test(each_worker_has_its_own_clients),
		cmocka_unit_test(the_same_script_is_loaded_once),
	};
	if (vm_find_lua_path(pattern, sizeof pattern))
		return 1;
	vm_set_lua_path(pattern);
	vm_set_libraries(BIND_LIBRARIES);
	vm_share_modules(true);
	int failed = cmocka_run_group_tests_name("world", tests, NULL, NULL);
	vm_share_modules(false);
	guard_stop();
	return failed;
}
