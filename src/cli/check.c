/* perilune check: load and validate a script, bind nothing. */
#include "base/text.h"
#include "cli/cli.h"
#include "cli/load.h"
#include "cli/options.h"
#include "server/server.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char *check_plural(unsigned n)
{
	return n == 1 ? "" : "s";
}

/* stdout is for the verdict: what the script itself prints goes to stderr meanwhile. -1: it does not. */
static int divert_stdout(void)
{
	fflush(stdout);
	int saved = dup(STDOUT_FILENO);
	if (saved >= 0)
		dup2(STDERR_FILENO, STDOUT_FILENO);
	return saved;
}

static void restore_stdout(int saved)
{
	fflush(stdout);
	if (saved < 0)
		return;
	dup2(saved, STDOUT_FILENO);
	close(saved);
}

static void tell_certificate_of(const char *text)
{
	text_printf(stdout, "  %s\n", text);
}

static int approve(const struct app_load *load, const struct options *options)
{
	const struct config *config = &load->config;
	app_warn(load);
	if (load->text)
		printf("%s%s", load->text, options->json ? "\n" : "");
	else
		text_printf(stdout, "%s: ok (%u listener%s, %u worker%s)\n", config->script,
			    config->listener_count, check_plural(config->listener_count), config->workers,
			    check_plural(config->workers));
	if (!options->json)
		config_tell_certificates(config, tell_certificate_of);
	return EXIT_OK;
}

static int check_check(const struct options *options)
{
	struct app_load load;
	int saved = divert_stdout();
	app_load(&load, options, options->json ? "json" : options->print ? "print" : NULL);
	restore_stdout(saved);
	int code;
	if (load.status == CONFIG_OK) {
		code = approve(&load, options);
	} else if ((load.status == CONFIG_BAD || load.status == CONFIG_USAGE) && options->json) {
		app_warn(&load);
		puts(load.text);
		code = load.status == CONFIG_USAGE ? EXIT_USAGE : EXIT_BAD_CONFIG;
	} else {
		code = app_explain(&load, options);
	}
	app_free(&load);
	return code;
}

const struct command command_check = {
	.name = "check",
	.arguments = "[app.lua] [options]",
	.summary = "load and validate a script, without listening",
	.about = "Loads and validates the script and listens nowhere. Without a file: app.lua in the current "
		 "folder.\n"
		 "The verdict goes to standard output, errors go to standard error; with --json both are one "
		 "object\n"
		 "on standard output: {\"ok\":true, …} in bytes and milliseconds, or {\"ok\":false, …}.",
	.notes = "Exit codes:\n"
		 "  0   the script is fine\n"
		 "  1   the check itself failed\n"
		 "  2   wrong usage\n"
		 "  78  bad script or configuration\n"
		 "\n"
		 "Example:\n"
		 "  perilune check chat.lua --print\n",
	.options = FOR_CHECK,
	.run = check_check,
};
