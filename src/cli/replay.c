/* perilune replay: a trace against a script. Its options and its help are in lua/perilune/test/replay_command.lua. */
#include "cli/cli.h"
#include "workbench/bench.h"

static int replay_run_raw(int argc, char **argv)
{
	return bench_run("perilune.test.replay_command", argc, argv);
}

const struct command command_replay = {
	.name = "replay",
	.summary = "run what was recorded against a script, in memory, and show what differs",
	.run_raw = replay_run_raw,
};
