#include "cli/load.h"

#include "base/limits.h"
#include "base/text.h"
#include "cli/options.h"
#include "server/server.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>

void app_load(struct app_load *load, const struct options *options, const char *form)
{
	struct config *config = &load->config;
	*load = (struct app_load){ .status = CONFIG_NO_MEMORY };
	config_hold(config); /* ours */
	config->script = strdup(options->script);
	int err = config->script ? environment_open(&load->environment) : UV_ENOMEM;
	if (err == UV_ENOMEM)
		return;
	/* A later override wins: flags over the environment. */
	if (!environment_apply(&load->environment, config) && !options_apply(options, config))
		load->status = config_load(config, form, &load->text);
	/* Damaged modules fail here as well, and it is told how. If they do not, memory was short for
	 * a moment, and the environment was not read. */
	if (err && load->status == CONFIG_OK)
		load->status = CONFIG_NO_MEMORY;
}

void app_free(struct app_load *load)
{
	environment_close(&load->environment);
	config_free(&load->config);
	free(load->text);
	load->text = NULL;
}

static void print_warning(const char *name, const char *near)
{
	text_printf(stderr, "perilune: warning: %s is no setting and is ignored", name);
	if (near)
		text_printf(stderr, " (did you mean %s?)", near);
	fputc('\n', stderr);
}

static void print_text(const char *text)
{
	text_printf(stderr, "perilune: warning: %s\n", text);
}

void app_warn(const struct app_load *load)
{
	environment_unknown(&load->environment, print_warning);
	if (load->config.strays)
		text_printf(stderr, "perilune: warning: %s: nothing calls these methods of the agent: %s\n",
			    load->config.script, load->config.strays);
	config_tell_globals(&load->config, print_text);
	config_tell_warnings(&load->config, print_text);
	config_tell_shared(&load->config, print_text);
}

/* The way out when there is no such script. */
static void print_hint(const struct options *options)
{
	struct stat info;
	char inside[PATH_MAX];
	if (stat(options->script, &info)) {
		if (options->script_named)
			text_printf(stderr, "name the script's file, as in 'perilune %s path/to/app.lua'\n",
				    options->command);
		else
			fprintf(stderr,
				"no script was named, so app.lua in the current folder was tried;"
				" name one, as in 'perilune %s path/to/app.lua'\n",
				options->command);
	} else if (S_ISDIR(info.st_mode)) {
		size_t len = strlen(options->script);
		const char *slash = len && options->script[len - 1] == '/' ? "" : "/";
		snprintf(inside, sizeof inside, "%s%sapp.lua", options->script, slash);
		text_printf(stderr, "it is a folder; name the script in it, as in 'perilune %s %s'\n",
			    options->command, access(inside, R_OK) ? "path/to/app.lua" : inside);
	}
}

int app_explain(const struct app_load *load, const struct options *options)
{
	app_warn(load);
	if (load->status == CONFIG_NO_MEMORY) {
		char why[LIMITS_TEXT_BYTES];
		fprintf(stderr, "perilune: %s\n", limits_explain(UV_ENOMEM, why, sizeof why));
		return EXIT_FAILED;
	}
	if (load->status == CONFIG_SHORT) {
		text_printf(stderr, "perilune: %s\n", load->text);
		return EXIT_FAILED;
	}
	if (load->status == CONFIG_BROKEN) {
		text_printf(stderr, "perilune: this is a fault of Perilune or its installation: %s\n",
			    load->text);
		return EXIT_FAILED;
	}
	if (load->status == CONFIG_USAGE) {
		text_printf(stderr, "%s\nsee 'perilune %s --help'\n", load->text, options->command);
		return EXIT_USAGE;
	}
	size_t len = strlen(load->text);
	text_printf(stderr, "%s%s", load->text, len && load->text[len - 1] == '\n' ? "" : "\n");
	print_hint(options);
	return EXIT_BAD_CONFIG;
}
