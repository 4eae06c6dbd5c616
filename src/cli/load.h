/*
 * From a command line to a loaded configuration: what run and check share.
 */
#pragma once

#include "cli/environment.h"
#include "config/config.h"

struct options;

struct app_load {
	struct config config;
	struct environment environment;
	char *text; /* see config_load(), or NULL */
	enum config_status status;
};

/* Loads the script with the environment's and the options' overrides. `form` as for config_load(). */
void app_load(struct app_load *load, const struct options *options, const char *form);
void app_free(struct app_load *load);

/* Says on stderr why the load failed, how to go on, and which variables may be misspelt. Returns the exit code. */
int app_explain(const struct app_load *load, const struct options *options);

/* Warns on stderr of variables that mean nothing. */
void app_warn(const struct app_load *load);
