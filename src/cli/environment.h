/*
 * The environment's settings: every key that can be overridden is also a
 * variable, in capitals, "." as "_": PERILUNE_LIMITS_CONNECTIONS.
 *
 * An unknown variable is a warning and no error: a container platform may well
 * define PERILUNE_PORT for a service of that name.
 */
#pragma once

struct config;

struct environment {
	char **paths; /* the keys; NULL: no variable of ours is set */
};

/* Cheap when no variable of ours is set. To be closed either way. 0, UV_ENOMEM or UV_ENOENT. */
int environment_open(struct environment *environment);
void environment_close(struct environment *environment);

/* Adds the variables that are set, and not empty, as overrides. 0 or UV_ENOMEM. */
int environment_apply(const struct environment *environment, struct config *config);

/* Reports each PERILUNE_* variable that means nothing. `near` names one that may be meant, or is NULL. */
void environment_unknown(const struct environment *environment,
			 void (*report)(const char *name, const char *near));
