#include "server/canary.h"

#include "base/log.h"
#include "config/sources.h"
#include "server/acceptor.h"
#include "worker/generation.h"

#include <stdio.h>

static void on_window_over(uv_timer_t *timer)
{
	struct canary *canary = timer->data;
	canary->is_over = true;
	canary->over(canary->owner);
}

void canary_open(struct canary *canary, uv_loop_t *loop, struct acceptor *acceptor, unsigned worker_count,
		 void *owner, void (*over)(void *owner))
{
	*canary = (struct canary){
		.acceptor = acceptor, .worker_count = worker_count, .owner = owner, .over = over
	};
	uv_timer_init(loop, &canary->window);
	canary->window.data = canary;
}

void canary_close(struct canary *canary)
{
	if (canary->acceptor)
		uv_close((uv_handle_t *)&canary->window, NULL);
	canary->acceptor = NULL;
}

void canary_begin(struct canary *canary, struct generation *first, struct config *config, uint64_t reload,
		  enum reload_policy policy)
{
	char share[32], max_errors[32];
	config_hold(config);
	canary->first = first;
	canary->config = config;
	canary->reload = reload;
	canary->policy = policy;
	canary->is_over = false;
	acceptor_split(canary->acceptor, config->canary_share);
	uv_timer_start(&canary->window, on_window_over, config->canary_window_ms, 0);
	snprintf(share, sizeof share, "%.9g", config->canary_share);
	snprintf(max_errors, sizeof max_errors, "%.9g", config->canary_max_errors);
	log_write(LOG_INFO, "canary begins", F_TEXT("script", config->script),
		  F_INT("generation", first->number), F_TEXT("key", config->sources->key_text),
		  F_TEXT("share", share), F_INT("window_ms", config->canary_window_ms),
		  F_TEXT("max_errors", max_errors));
}

struct canary_figures canary_look(const struct canary *canary)
{
	struct canary_figures figures = { .generation = canary->first->number,
					  .conns = atomic_load_explicit(&canary->acceptor->split_conns,
									memory_order_relaxed),
					  .left_ms = uv_timer_get_due_in(&canary->window) };
	const struct generation *each = canary->first;
	for (unsigned i = 0; i < canary->worker_count; i++, each = each->next_known) {
		figures.failed += atomic_load_explicit(&each->failed, memory_order_acquire);
		if (!*figures.fault && agents_first_fault(&each->agents))
			snprintf(figures.fault, sizeof figures.fault, "%s",
				 agents_first_fault(&each->agents));
	}
	return figures;
}

bool canary_is_bad(const struct canary *canary, const struct canary_figures *figures)
{
	return (double)figures->failed > canary->config->canary_max_errors * (double)figures->conns;
}

void canary_end(struct canary *canary)
{
	uv_timer_stop(&canary->window);
	acceptor_split(canary->acceptor, 0);
	canary->first = NULL;
	config_drop(canary->config);
	canary->config = NULL;
	canary->is_over = false;
}
