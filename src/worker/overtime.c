#include "worker/overtime.h"

#include "base/thread_state.h"

/* More than that between two looks does not count: this thread was not let run either, or the process was stopped. */
enum { GAP_MS = 3 * OVERTIME_LOOK_MS };

bool overtime_look(struct overtime *overtime, pid_t thread, uint64_t now_ms)
{
	struct thread_state state;
	bool is_known = thread_read(thread, &state);
	if (!overtime->has_begun)
		*overtime = (struct overtime){ .has_begun = true,
					       .from_cpu_ms = is_known ? state.cpu_ms : 0,
					       .looked_ms = now_ms };
	uint64_t gap_ms = now_ms - overtime->looked_ms;
	overtime->looked_ms = now_ms;
	if (!is_known || state.is_asleep)
		overtime->asleep_ms += gap_ms < GAP_MS ? gap_ms : GAP_MS;
	return overtime->asleep_ms >= OVERTIME_MS ||
	       (is_known && state.cpu_ms >= overtime->from_cpu_ms + OVERTIME_MS);
}
