// _cpu.level(): the highest x86-64 micro-architecture level (2, 3 or 4) this CPU and operating system can run, 1 for an
// older x86-64 and 0 off x86. Compiled without any -march flag, so that it runs everywhere.
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <cstdint>

#if defined(__x86_64__) || defined(_M_X64)
#define PRELUFLOW_X86 1
#if defined(_MSC_VER)
#include <immintrin.h>
#include <intrin.h>
#else
#include <cpuid.h>
#endif
#endif

namespace {

#ifdef PRELUFLOW_X86

struct Registers {
  std::uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};

Registers cpuid(std::uint32_t leaf, std::uint32_t subleaf) {
  Registers r;
#if defined(_MSC_VER)
  int values[4];
  __cpuidex(values, static_cast<int>(leaf), static_cast<int>(subleaf));
  r.eax = static_cast<std::uint32_t>(values[0]);
  r.ebx = static_cast<std::uint32_t>(values[1]);
  r.ecx = static_cast<std::uint32_t>(values[2]);
  r.edx = static_cast<std::uint32_t>(values[3]);
#else
  __cpuid_count(leaf, subleaf, r.eax, r.ebx, r.ecx, r.edx);
#endif
  return r;
}

std::uint64_t xgetbv() {
#if defined(_MSC_VER)
  return _xgetbv(0);
#else
  std::uint32_t low = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<std::uint64_t>(high) << 32) | low;
#endif
}

bool all(std::uint32_t bits, std::uint32_t wanted) { return (bits & wanted) == wanted; }

constexpr std::uint32_t bit(int k) { return std::uint32_t{1} << k; }

// The feature lists are those of the x86-64 psABI.
int level() {
  if (cpuid(0, 0).eax < 1) return 1;
  const std::uint32_t highest = cpuid(0, 0).eax;
  const std::uint32_t highest_extended = cpuid(0x80000000u, 0).eax;
  const Registers one = cpuid(1, 0);
  const Registers extended = highest_extended >= 0x80000001u ? cpuid(0x80000001u, 0) : Registers{};
  const Registers seven = highest >= 7 ? cpuid(7, 0) : Registers{};

  // SSE3, SSSE3, CMPXCHG16B, SSE4.1, SSE4.2, POPCNT; LAHF-SAHF
  const std::uint32_t v2 = bit(0) | bit(9) | bit(13) | bit(19) | bit(20) | bit(23);
  if (!all(one.ecx, v2) || !all(extended.ecx, bit(0))) return 1;

  // FMA, MOVBE, OSXSAVE, AVX, F16C; LZCNT; BMI1, AVX2, BMI2; and the operating system saves XMM and YMM
  const std::uint32_t v3 = bit(12) | bit(22) | bit(27) | bit(28) | bit(29);
  if (!all(one.ecx, v3) || !all(extended.ecx, bit(5)) || !all(seven.ebx, bit(3) | bit(5) | bit(8))) return 2;
  const std::uint64_t saved = xgetbv();
  if ((saved & 0x6) != 0x6) return 2;

  // AVX512F, DQ, CD, BW, VL; and the operating system saves opmask and ZMM
  const std::uint32_t v4 = bit(16) | bit(17) | bit(28) | bit(30) | bit(31);
  if (!all(seven.ebx, v4) || (saved & 0xe0) != 0xe0) return 3;
  return 4;
}

#else

int level() { return 0; }

#endif

PyObject* py_level(PyObject*, PyObject*) { return PyLong_FromLong(level()); }

PyMethodDef methods[] = {{"level", py_level, METH_NOARGS, "Highest x86-64 level this machine runs; 0 off x86."},
                         {nullptr, nullptr, 0, nullptr}};

PyModuleDef module = {PyModuleDef_HEAD_INIT, "_cpu", nullptr, 0, methods, nullptr, nullptr, nullptr, nullptr};

}  // namespace

PyMODINIT_FUNC PyInit__cpu() { return PyModule_Create(&module); }  // NOLINT(bugprone-reserved-identifier)
