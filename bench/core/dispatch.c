/*
 * What a frame costs between the socket's read() and its write(): decode, string, Lua, encode.
 *
 *   dispatch SCRIPT BATCH [FRAMES]
 *
 * Payloads are 32 bytes and all different. Prints nanoseconds of CPU per frame, the best and the median of several
 * runs of FRAMES; under `valgrind --tool=callgrind` the instruction count is what repeats. Then the longest of the
 * events of some runs more, which is the collector's longest step and a batch; and memory: the heap after a collection
 * (live), the largest heap and the largest resident memory while frames came.
 *
 * A run should be long beside a cycle of the collector: with 100,000 live objects that is 60,000 frames, with a
 * million 700,000.
 */
#include "harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PAYLOAD = 32, FRAME = PAYLOAD + 4, RUNS = 25, TIMED_RUNS = 3, PACE_FRAMES = 100000 };

struct bench {
	struct world world;
	struct peer *peer;
	uint8_t *input;
	unsigned batch;
	uint64_t serial;
	unsigned long paced; /* frames since the last vm_pace() */
	int peak_kb;
	double longest_ms;
};

static void fill(struct bench *bench)
{
	uint8_t *at = bench->input;
	for (unsigned i = 0; i < bench->batch; i++, at += FRAME) {
		bench->serial++;
		memcpy(at + 4, &bench->serial, sizeof bench->serial);
	}
}

/* Under valgrind a batch takes so long that it is cut: the connection has another turn. */
static void exchange(struct bench *bench)
{
	struct memory_stream *memory = &bench->peer->memory;
	size_t bytes = (size_t)bench->batch * FRAME;
	memory_stream_put(memory, bench->input, bytes);
	harness_serve(bench->peer);
	while (memory->outward.bytes != bytes) {
		size_t before = memory->outward.bytes;
		conn_host_turn(&bench->world.workers[0].host, bench->world.workers[0].host.now_ms);
		harness_serve(bench->peer);
		if (memory->outward.bytes == before) {
			fprintf(stderr, "expected %u replies\n", bench->batch);
			exit(1);
		}
	}
	memory->outward.bytes = 0;
}

/* As a worker does after each poll. */
static void turn(struct bench *bench)
{
	struct vm *vm = &bench->world.workers[0].agents->vm;
	int heap_kb = lua_gc(vm->lua, LUA_GCCOUNT, 0);
	bench->peak_kb = heap_kb > bench->peak_kb ? heap_kb : bench->peak_kb;
	vm_sample(vm);
	bench->paced += bench->batch;
	if (bench->paced < PACE_FRAMES)
		return;
	bench->paced = 0;
	vm_pace(vm, PAYLOAD);
}

static void run(struct bench *bench, unsigned long frames)
{
	for (unsigned long done = 0; done < frames; done += bench->batch) {
		fill(bench);
		exchange(bench);
		turn(bench);
	}
}

static void run_timed(struct bench *bench, unsigned long frames)
{
	for (unsigned long done = 0; done < frames; done += bench->batch) {
		fill(bench);
		uint64_t from = harness_cpu_ns();
		exchange(bench);
		turn(bench);
		double ms = (double)(harness_cpu_ns() - from) / 1e6;
		bench->longest_ms = ms > bench->longest_ms ? ms : bench->longest_ms;
	}
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static long resident_kb(void)
{
	long pages = 0;
	FILE *file = fopen("/proc/self/statm", "r");
	if (!file || fscanf(file, "%*d %ld", &pages) != 1)
		pages = 0;
	if (file)
		fclose(file);
	return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

static void open_bench(struct bench *bench, const char *script, unsigned batch)
{
	bench->batch = batch;
	harness_open(&bench->world, script);
	bench->peer = harness_connect(&bench->world);
	bench->input = calloc(batch, FRAME);
	for (unsigned i = 0; i < batch; i++)
		memcpy(bench->input + i * FRAME, (uint8_t[]){ 0, 0, 0, PAYLOAD }, 4);
}

int main(int argc, char **argv)
{
	static struct bench bench;
	double ns[RUNS];
	long rss_kb = 0;
	if (argc < 3 || atoi(argv[2]) < 1) {
		fprintf(stderr, "usage: dispatch SCRIPT BATCH [FRAMES]\n");
		return 2;
	}
	unsigned long frames = argc > 3 ? strtoul(argv[3], NULL, 0) : 2000000;
	open_bench(&bench, argv[1], (unsigned)atoi(argv[2]));
	for (int i = 0; i < RUNS; i++) {
		uint64_t from = harness_cpu_ns();
		run(&bench, frames);
		ns[i] = (double)(harness_cpu_ns() - from) / (double)frames;
		long resident = resident_kb();
		rss_kb = resident > rss_kb ? resident : rss_kb;
	}
	qsort(ns, RUNS, sizeof *ns, compare);
	for (int i = 0; i < TIMED_RUNS; i++)
		run_timed(&bench, frames);
	lua_State *lua = bench.world.workers[0].agents->vm.lua;
	lua_gc(lua, LUA_GCCOLLECT, 0);
	printf(
	    "{\"batch\":%u,\"ns_per_frame\":%.1f,\"median_ns\":%.1f,\"longest_event_ms\":%.3f,\"live_kb\":%d,"
	    "\"peak_kb\":%d,\"rss_kb\":%ld}\n",
	    bench.batch, ns[0], ns[RUNS / 2], bench.longest_ms, lua_gc(lua, LUA_GCCOUNT, 0), bench.peak_kb,
	    rss_kb);
	free(bench.input);
	harness_close(&bench.world);
	return 0;
}
