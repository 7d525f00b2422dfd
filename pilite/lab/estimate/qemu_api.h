/* qemu_api.h - the part of QEMU's TCG plugin interface, version 1, that profiler.c uses.
 *
 * Written from the interface's documentation, so that the plugin builds with a C compiler alone: Debian ships QEMU
 * with plugins enabled, but no header. QEMU 6.0 to 9.0 accept version 1; a newer QEMU refuses it when it loads. */
#ifndef PILITE_QEMU_API_H
#define PILITE_QEMU_API_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define QEMU_EXPORT __attribute__((visibility("default")))

typedef uint64_t qemu_plugin_id_t;
typedef uint32_t qemu_plugin_meminfo_t;
typedef struct qemu_info_t qemu_info_t;
struct qemu_plugin_tb;   /* a translation block: straight-line code up to a branch */
struct qemu_plugin_insn;

enum qemu_plugin_cb_flags { QEMU_PLUGIN_CB_NO_REGS = 0 };
enum qemu_plugin_mem_rw { QEMU_PLUGIN_MEM_R = 1, QEMU_PLUGIN_MEM_W = 2, QEMU_PLUGIN_MEM_RW = 3 };

/* What a plugin gives to QEMU. */
QEMU_EXPORT extern int qemu_plugin_version;
QEMU_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t* info, int argc, char** argv);

/* What QEMU gives to a plugin. */
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id, void (*on_translate)(qemu_plugin_id_t, struct qemu_plugin_tb*));
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb* tb, void (*on_execute)(unsigned vcpu, void* data),
                                          enum qemu_plugin_cb_flags flags, void* data);
void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn* insn,
                                      void (*on_access)(unsigned vcpu, qemu_plugin_meminfo_t, uint64_t address, void* data),
                                      enum qemu_plugin_cb_flags flags, enum qemu_plugin_mem_rw rw, void* data);
void qemu_plugin_register_vcpu_syscall_cb(qemu_plugin_id_t id,
                                          void (*on_syscall)(qemu_plugin_id_t, unsigned vcpu, int64_t number, uint64_t, uint64_t,
                                                             uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t));
/* Forgets all callbacks and all translated code, then calls `done`. */
void qemu_plugin_reset(qemu_plugin_id_t id, void (*done)(qemu_plugin_id_t));
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb* tb);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb* tb);
struct qemu_plugin_insn* qemu_plugin_tb_get_insn(const struct qemu_plugin_tb* tb, size_t index);
const void* qemu_plugin_insn_data(const struct qemu_plugin_insn* insn);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn* insn);
unsigned qemu_plugin_mem_size_shift(qemu_plugin_meminfo_t info);
bool qemu_plugin_mem_is_store(qemu_plugin_meminfo_t info);

#endif
