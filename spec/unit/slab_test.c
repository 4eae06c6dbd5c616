#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "vm/slab.h"

#include <errno.h>
#include <lauxlib.h>
#include <lualib.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>

enum { MODEL_BLOCKS = 500, MODEL_STEPS = 40000, MODEL_BYTES = 20000 };

static struct slab slab;
static uint64_t seed;

struct block {
	uint8_t *at;
	size_t bytes;
	uint8_t fill;
};

static struct block blocks[MODEL_BLOCKS];

static uint32_t below(uint32_t bound)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (uint32_t)(seed >> 16) % bound;
}

static int start(void **state)
{
	(void)state;
	slab_init(&slab);
	seed = 20260102;
	memset(blocks, 0, sizeof blocks);
	return 0;
}

static int end(void **state)
{
	(void)state;
	slab_deinit(&slab);
	return 0;
}

static bool holds(const struct block *block, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++)
		if (block->at[i] != block->fill)
			return false;
	return true;
}

/* realloc(3) in all its forms, with the contents checked before and after. */
static void resize(struct block *block, size_t bytes)
{
	size_t kept = block->bytes < bytes ? block->bytes : bytes;
	assert_true(holds(block, block->bytes));
	block->at = slab_alloc(&slab, block->at, block->bytes, bytes);
	block->bytes = bytes;
	if (!bytes) {
		assert_null(block->at);
		return;
	}
	assert_non_null(block->at);
	assert_int_equal((uintptr_t)block->at % 8, 0);
	assert_true(holds(block, kept));
	block->fill = (uint8_t)below(256);
	memset(block->at, block->fill, bytes);
}

static size_t some_bytes(void)
{
	static const uint32_t UP_TO[] = { 64, 256, 1024, 4096, MODEL_BYTES, 100000 };
	return 1 + below(UP_TO[below(sizeof UP_TO / sizeof *UP_TO)]);
}

static size_t large_bytes(void)
{
	size_t sum = 0;
	for (size_t i = 0; i < MODEL_BLOCKS; i++)
		sum += blocks[i].bytes > SLAB_SMALL_BYTES ? blocks[i].bytes : 0;
	return sum;
}

static void free_all(void)
{
	for (size_t i = 0; i < MODEL_BLOCKS; i++)
		resize(&blocks[i], 0);
}

static void blocks_keep_their_contents(void **state)
{
	(void)state;
	for (unsigned n = 0; n < MODEL_STEPS; n++) {
		struct block *block = &blocks[below(MODEL_BLOCKS)];
		resize(block, below(3) ? some_bytes() : 0);
		if (n % 1000 == 0) {
			assert_int_equal(slab.large_bytes, large_bytes());
			slab_trim(&slab);
		}
	}
	free_all();
	assert_int_equal(slab.large_bytes, 0);
	assert_true(slab.page_bytes <= (size_t)SLAB_CLASSES * SLAB_PAGE_BYTES);
}

/* Two neighbours of each size do not overlap, and a block can be resized to every size near its own. */
static void every_size(void **state)
{
	(void)state;
	for (size_t bytes = 1; bytes <= MODEL_BYTES; bytes += bytes < 2100 ? 1 : 61) {
		struct block a = { 0 }, b = { 0 };
		resize(&a, bytes);
		resize(&b, bytes);
		assert_true(holds(&a, bytes));
		resize(&a, bytes + 8);
		resize(&b, bytes > 8 ? bytes - 8 : 1);
		resize(&a, 0);
		resize(&b, 0);
	}
	for (size_t bytes = SLAB_SMALL_BYTES - 2; bytes <= SLAB_SMALL_BYTES + 2; bytes++) {
		struct block a = { 0 };
		resize(&a, bytes);
		assert_int_equal(slab.large_bytes, bytes > SLAB_SMALL_BYTES ? bytes : 0);
		resize(&a, 2 * SLAB_SMALL_BYTES);
		assert_int_equal(slab.large_bytes, 2 * SLAB_SMALL_BYTES);
		resize(&a, bytes);
		resize(&a, 0);
	}
	assert_int_equal(slab.large_bytes, 0);
}

static void nothing_is_allocated_for_no_bytes(void **state)
{
	(void)state;
	assert_null(slab_alloc(&slab, NULL, 0, 0));
	/* With no block, Lua's old size may be a type tag (5.2 on): it means nothing. */
	void *block = slab_alloc(&slab, NULL, 5, 24);
	assert_non_null(block);
	assert_null(slab_alloc(&slab, block, 24, 0));
}

static bool is_mapped(void *address)
{
	unsigned char resident;
	void *page = (void *)((uintptr_t)address & ~(uintptr_t)(SLAB_PAGE_BYTES - 1));
	return mincore(page, 4096, &resident) == 0 || errno != ENOMEM;
}

/* How far apart the first and the last of the addresses are that are still mapped. */
static size_t mapped_span(void *const *addresses, size_t n)
{
	uintptr_t first = UINTPTR_MAX, last = 0;
	for (size_t i = 0; i < n; i++) {
		uintptr_t at = (uintptr_t)addresses[i];
		if (!is_mapped(addresses[i]))
			continue;
		first = at < first ? at : first;
		last = at > last ? at : last;
	}
	return last < first ? 0 : last - first + 1;
}

/* Several chunks full of the largest blocks. When all are free, one page of their class stays. */
static void empty_pages_go_back(void **state)
{
	(void)state;
	enum { BLOCKS = 600 };
	static void *large[BLOCKS];
	for (size_t i = 0; i < BLOCKS; i++) {
		large[i] = slab_alloc(&slab, NULL, 0, SLAB_SMALL_BYTES);
		assert_non_null(large[i]);
	}
	assert_true(slab.page_bytes >= (size_t)BLOCKS * SLAB_SMALL_BYTES);
	assert_true(mapped_span(large, BLOCKS) > 2 * (size_t)SLAB_CHUNK_BYTES);
	for (size_t i = 0; i < BLOCKS; i++)
		slab_alloc(&slab, large[i], SLAB_SMALL_BYTES, 0);
	assert_int_equal(slab.page_bytes, SLAB_PAGE_BYTES);
	assert_int_equal(slab.empty_count, SLAB_KEEP_PAGES);
	slab_trim(&slab);
	assert_int_equal(slab.empty_count, 0);
	assert_null(slab.empty);
	assert_in_range(mapped_span(large, BLOCKS), 1, SLAB_CHUNK_BYTES);
	slab_trim(&slab); /* nothing left: harmless */
	slab_deinit(&slab);
	assert_int_equal(mapped_span(large, BLOCKS), 0);
}

/* Returned pages are taken again, by any class. */
static void returned_pages_are_used_again(void **state)
{
	(void)state;
	for (unsigned round = 0; round < 20; round++) {
		for (size_t i = 0; i < MODEL_BLOCKS; i++)
			resize(&blocks[i], 100 + 700 * round);
		free_all();
		if (round % 2)
			slab_trim(&slab);
	}
	assert_true(slab.page_bytes <= 20 * (size_t)SLAB_PAGE_BYTES);
}

static void a_surplus_of_empty_pages_is_not_kept(void **state)
{
	(void)state;
	for (unsigned round = 0; round < 5; round++) {
		for (size_t i = 0; i < MODEL_BLOCKS; i++)
			resize(&blocks[i], SLAB_SMALL_BYTES - 2000 * round);
		free_all();
		assert_true(slab.empty_count <= SLAB_KEEP_PAGES);
	}
}

static void deinit_takes_live_blocks_along(void **state)
{
	(void)state;
	for (size_t i = 0; i < MODEL_BLOCKS; i++)
		resize(&blocks[i], 1 + below(SLAB_SMALL_BYTES));
	uint8_t *one = blocks[0].at;
	slab_deinit(&slab);
	assert_false(is_mapped(one));
	assert_int_equal(slab.page_bytes, 0);
	assert_null(slab.chunks);
	memset(blocks, 0, sizeof blocks);
	resize(&blocks[0], 100); /* and it can be used again */
	resize(&blocks[0], 0);
}

static const char PROGRAM[] =
    "local t = {}\n"
    "for i = 1, 20000 do t[i] = { ('x'):rep(i % 700), i } end\n"
    "for i = 1, 20000, 3 do t[i] = false end\n"
    "collectgarbage()\n"
    "local sum = 0\n"
    "for i = 1, 20000 do if t[i] then assert(#t[i][1] == i % 700) sum = sum + t[i][2] end end\n"
    "t = nil\n"
    "local s = ('y'):rep(300000) .. 'z'\n"
    "local co = coroutine.wrap(function() coroutine.yield(#s) end)\n"
    "return sum + co()\n";

static void a_vm_runs_on_it(void **state)
{
	(void)state;
	for (unsigned round = 0; round < 2; round++) {
		lua_State *L = lua_newstate(slab_alloc, &slab);
		assert_non_null(L);
		luaL_openlibs(L);
		assert_int_equal(luaL_dostring(L, PROGRAM), 0);
		assert_int_equal(lua_tointeger(L, -1), 133340000 + 300001);
		assert_true(slab.page_bytes > 0);
		size_t high = slab.page_bytes;
		lua_gc(L, LUA_GCCOLLECT, 0);
		lua_settop(L, 0);
		lua_gc(L, LUA_GCCOLLECT, 0);
		assert_true(slab.page_bytes < high);
		lua_close(L);
		assert_int_equal(slab.large_bytes, 0);
		for (unsigned class = 0; class < SLAB_CLASSES; class ++) /* what is left is empty */
			slab.page_bytes -= slab.partial[class] ? SLAB_PAGE_BYTES : 0;
		assert_int_equal(slab.page_bytes, 0);
		slab_deinit(&slab);
		assert_int_equal(slab.page_bytes, 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(blocks_keep_their_contents, start, end),
		cmocka_unit_test_setup_teardown(every_size, start, end),
		cmocka_unit_test_setup_teardown(nothing_is_allocated_for_no_bytes, start, end),
		cmocka_unit_test_setup_teardown(empty_pages_go_back, start, end),
		cmocka_unit_test_setup_teardown(returned_pages_are_used_again, start, end),
		cmocka_unit_test_setup_teardown(a_surplus_of_empty_pages_is_not_kept, start, end),
		cmocka_unit_test_setup_teardown(deinit_takes_live_blocks_along, start, end),
		cmocka_unit_test_setup_teardown(a_vm_runs_on_it, start, end),
	};
	return cmocka_run_group_tests_name("slab", tests, NULL, NULL);
}
