/* perilune test: run specifications. Its options are busted's, and lua/perilune/test/options.lua has its help. */
#include "cli/cli.h"
#include "workbench/bench.h"

static int test_run_raw(int argc, char **argv)
{
	return bench_run("perilune.test.runner", argc, argv);
}

const struct command command_test = {
	.name = "test",
	.summary = "run specifications, of apps in memory or of real servers",
	.run_raw = test_run_raw,
};
