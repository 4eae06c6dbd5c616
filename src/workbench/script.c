#include "workbench/script.h"

#include "config/config.h"
#include "config/sources.h"

#include <stdlib.h>
#include <string.h>

enum { KEPT = 16 };

/* The latest first; each is held once. */
static struct config *kept[KEPT];

static bool add_overrides(struct config *config, const struct script *script)
{
	for (size_t i = 0; i < script->override_count; i++) {
		const struct override *one = &script->overrides[i];
		if (config_add_override(config, one->path, one->value, one->origin))
			return false;
	}
	return true;
}

/* With its sources, and no more. NULL: no memory. */
static struct config *script_begin(const struct script *script)
{
	struct config *config = calloc(1, sizeof *config);
	if (!config)
		return NULL;
	config_hold(config);
	config->script = strdup(script->path);
	if (script->image)
		config->sources = sources_of_image(script->path, script->image, script->image_bytes);
	if (config->script && (config->sources || !script->image) && add_overrides(config, script) &&
	    !config_read(config))
		return config;
	config_drop(config);
	return NULL;
}

static bool script_is_same(const struct config *a, const struct config *b)
{
	bool same = !strcmp(a->script, b->script) && a->sources->key == b->sources->key &&
		    a->sources->is_image == b->sources->is_image && a->override_count == b->override_count;
	for (size_t i = 0; same && i < a->override_count; i++)
		same = !strcmp(a->overrides[i].path, b->overrides[i].path) &&
		       !strcmp(a->overrides[i].value, b->overrides[i].value);
	return same;
}

/* To the front; the last one goes. */
static void script_keep(struct config *config, size_t from)
{
	if (from == KEPT && kept[--from])
		config_drop(kept[from]);
	memmove(kept + 1, kept, from * sizeof *kept);
	kept[0] = config;
}

static size_t script_find(const struct config *config)
{
	size_t i = 0;
	while (i < KEPT && kept[i] && !script_is_same(kept[i], config))
		i++;
	return i < KEPT && kept[i] ? i : KEPT;
}

struct config *script_load(const struct script *script, char **text)
{
	*text = NULL;
	struct config *config = script_begin(script);
	if (!config)
		return NULL;
	size_t at = script_find(config);
	if (at < KEPT) {
		config_drop(config);
		config = kept[at];
		script_keep(config, at);
	} else if (config_load(config, NULL, text) == CONFIG_OK) {
		free(*text);
		*text = NULL;
		script_keep(config, KEPT);
	} else {
		config_drop(config);
		return NULL;
	}
	config_hold(config);
	return config;
}

void script_forget(void)
{
	for (size_t i = 0; i < KEPT; i++) {
		if (kept[i])
			config_drop(kept[i]);
		kept[i] = NULL;
	}
}
