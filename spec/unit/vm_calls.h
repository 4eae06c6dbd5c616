/*
 * What the tests of src/vm/ have in common: a VM, calls into it under a budget, and what is to be true after them.
 * They fail as tests of cmocka do.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "vm/vm.h"

struct ending {
	int status;
	enum guard_verdict verdict;
};

extern const struct vm_budget SHORT, AMPLE, NONE;

/* Fills the memory. */
extern const char HOG[];

extern struct vm vm;

/* Opens and closes it; of each test. */
int vm_begin(void **state);
int vm_end(void **state);

#define IN_A_VM(TEST) cmocka_unit_test_setup_teardown(TEST, vm_begin, vm_end)

/*
 * Calls run(way) for each way of interrupting that works here, with the watchdog running. Returns the sum of what it
 * did.
 */
int in_each_way(int (*run)(const char *way));

/* The same for the first of them, which is the one that people have. */
int in_the_usual_way(int (*run)(const char *way));

/* Of what a test repeats with other numbers: fewer in other ways than the usual one, and where all is slow. */
int some_of(int rounds);

/* Pushes a chunk, "chat.lua". */
void load(struct vm *in, const char *source);

/* Runs one. What the call left is on top of the stack. */
struct ending call_in(struct vm *in, const char *source, const struct vm_budget *budget);
struct ending call(const char *source, const struct vm_budget *budget);

void set_function(struct vm *in, const char *name, lua_CFunction function);

/* Nothing of an interruption is left. */
void assert_disarmed(void);

/* A call that has nothing to do with those before it. */
void assert_works(struct vm *in);

/* Pops its error. */
void assert_killed(struct ending ending, enum guard_verdict verdict);

size_t heap_bytes(void);

/* As before each of many calls. */
void relieve(void);
