#include "workbench/links.h"

#include "config/config.h"
#include "workbench/lan.h"
#include "workbench/world.h"

#include <stdlib.h>
#include <string.h>

/* ---- numbers ---- */

uint64_t links_random(uint64_t *state)
{
	uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

uint64_t links_draw(uint64_t *state, uint64_t n)
{
	return links_random(state) % n;
}

bool links_is_drawn(uint64_t *state, double share)
{
	enum { PARTS = 1 << 30 };
	if (share <= 0 || share >= 1)
		return share > 0;
	return (double)links_draw(state, PARTS) < share * PARTS;
}

/* ---- nodes ---- */

struct lan_node *links_add_node(struct lan *lan, const char *name)
{
	struct lan_node *node = calloc(1, sizeof *node), **link = &lan->nodes;
	char *copy = strdup(name);
	if (!node || !copy) {
		free(node);
		free(copy);
		return NULL;
	}
	node->name = copy;
	while (*link)
		link = &(*link)->next;
	*link = node;
	return node;
}

static void hold_config(struct lan_node *node, struct config *config)
{
	if (config)
		config_hold(config);
	if (node->config)
		config_drop(node->config);
	node->config = config;
}

void links_open_node(struct lan_node *node, struct world *world)
{
	node->world = world;
	node->is_silent = node->is_stalled = false;
	hold_config(node, world->config);
}

void links_close_node(struct lan_node *node, bool is_silent)
{
	node->world = NULL;
	node->is_silent = is_silent;
	node->is_stalled = false;
}

void links_free(struct lan *lan)
{
	for (struct lan_node *node; (node = lan->nodes);) {
		lan->nodes = node->next;
		hold_config(node, NULL);
		free(node->name);
		free(node);
	}
	for (struct lan_link *link; (link = lan->links);) {
		lan->links = link->next;
		free(link);
	}
}

/* ---- links ---- */

static struct lan_link *find_link(const struct lan *lan, const struct lan_node *from,
				  const struct lan_node *to)
{
	struct lan_link *link = from && to ? lan->links : NULL;
	while (link && (link->from != from || link->to != to))
		link = link->next;
	return link;
}

static struct lan_link *make_link(struct lan *lan, const struct lan_node *from, const struct lan_node *to)
{
	struct lan_link *link = find_link(lan, from, to);
	if (link)
		return link;
	link = calloc(1, sizeof *link);
	if (!link)
		return NULL;
	*link = (struct lan_link){ .next = lan->links, .from = from, .to = to };
	return lan->links = link;
}

bool links_set(struct lan *lan, const struct lan_node *from, const struct lan_node *to,
	       const struct link_conditions *conditions)
{
	if (!from || !to) {
		lan->conditions = *conditions;
		return true;
	}
	struct lan_link *link = make_link(lan, from, to);
	if (!link)
		return false;
	link->conditions = *conditions;
	link->has_conditions = true;
	return true;
}

bool links_part(struct lan *lan, const struct lan_node *from, const struct lan_node *to, bool is_parted)
{
	struct lan_link *link = is_parted ? make_link(lan, from, to) : find_link(lan, from, to);
	if (link)
		link->is_parted = is_parted;
	return link || !is_parted;
}

const struct link_conditions *links_find(const struct lan *lan, const struct lan_node *from,
					 const struct lan_node *to)
{
	const struct lan_link *link = find_link(lan, from, to);
	return link && link->has_conditions ? &link->conditions : &lan->conditions;
}

bool links_are_parted(const struct lan *lan, const struct lan_node *from, const struct lan_node *to)
{
	const struct lan_link *link = find_link(lan, from, to);
	return link && link->is_parted;
}
