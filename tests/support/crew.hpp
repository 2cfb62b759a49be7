// Threads that are used again and again, and a place where they meet.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace support {

/// A moment of a spin loop.
inline void pause() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#else
    std::atomic_signal_fence(std::memory_order_seq_cst);
#endif
}

/// Lets threads go on together, within nanoseconds of each other. That needs all of them on a core at that moment, so where there are
/// cores enough it spins for longer than the scheduler leaves one of them out.
class meeting {
public:
    explicit meeting(int size) : size_(size), patience_(size <= static_cast<int>(std::thread::hardware_concurrency()) ? 100'000 : 300) {}

    void arrive() {
        const int round = round_.load(std::memory_order_acquire);
        if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size_) {
            arrived_.store(0, std::memory_order_relaxed);
            round_.store(round + 1, std::memory_order_release);
            return;
        }
        for (int spins = 0; round_.load(std::memory_order_acquire) == round; ++spins) {
            pause();
            if (spins > patience_) { std::this_thread::yield(); }
        }
    }

private:
    const int size_, patience_;
    alignas(64) std::atomic<int> arrived_{0};
    alignas(64) std::atomic<int> round_{0};
};

class crew {
public:
    explicit crew(int size) {
        for (int i = 0; i < size; ++i) {
            threads_.emplace_back([this, i] { work(i); });
        }
    }
    crew(const crew&) = delete;
    crew& operator=(const crew&) = delete;
    ~crew() {
        {
            const std::lock_guard lock(mutex_);
            job_ = nullptr;
            ++round_;
            start_.notify_all();
        }
        for (auto& t : threads_) { t.join(); }
    }

    /// Runs `job(0) .. job(size - 1)` at once and returns when all are done. `size` is at most the crew's.
    void run(int size, std::function<void(int)> job) {
        std::unique_lock lock(mutex_);
        job_ = std::move(job);
        size_ = size;
        busy_ = static_cast<int>(threads_.size());
        ++round_;
        start_.notify_all();
        done_.wait(lock, [this] { return busy_ == 0; });
    }

private:
    void work(int self) {
        std::unique_lock lock(mutex_);
        for (unsigned long seen = 0;;) {
            start_.wait(lock, [&] { return round_ != seen; });
            seen = round_;
            if (!job_) { return; }
            lock.unlock();
            if (self < size_) { job_(self); }
            lock.lock();
            if (--busy_ == 0) { done_.notify_one(); }
        }
    }

    std::mutex mutex_;
    std::condition_variable start_, done_;
    std::function<void(int)> job_;
    int size_ = 0, busy_ = 0;
    unsigned long round_ = 0;
    std::vector<std::thread> threads_;
};

} // namespace support
