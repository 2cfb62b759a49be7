// heap: an intrusive pairing heap. Nothing is allocated, so nothing can fail; push O(1), pop and erase O(log n) amortised.
// Source: Fredman, Sedgewick, Sleator, Tarjan, "The Pairing Heap: A New Form of Self-Adjusting Heap", Algorithmica 1 (1986).
// Not thread-safe.
#pragma once

#include <cstddef>

namespace mailroom::detail {

/// What a node carries for each heap it may be in. `previous` is the left sibling, or the parent of a first child.
template <class Node>
struct heap_links {
    Node* child = nullptr;
    Node* next = nullptr;
    Node* previous = nullptr;
    bool linked = false;
};

/// `Less(a, b)`: a is nearer to the top.
template <class Node, heap_links<Node> Node::*Links, class Less>
class heap {
public:
    bool empty() const noexcept { return root_ == nullptr; }
    Node* top() const noexcept { return root_; }
    static bool holds(const Node& n) noexcept { return (n.*Links).linked; }

    void push(Node& n) noexcept {
        (n.*Links) = {nullptr, nullptr, nullptr, true};
        root_ = root_ == nullptr ? &n : meld(*root_, n);
    }

    void erase(Node& n) noexcept {
        auto& links = n.*Links;
        Node* const rest = pair(links.child);
        if (&n == root_) {
            root_ = rest;
        } else {
            Node& before = *links.previous;
            ((before.*Links).child == &n ? (before.*Links).child : (before.*Links).next) = links.next;
            if (links.next != nullptr) { (links.next->*Links).previous = &before; }
            if (rest != nullptr) { root_ = meld(*root_, *rest); }
        }
        links = {};
    }

private:
    // Two roots become one; both without siblings.
    static Node* meld(Node& a, Node& b) noexcept {
        Node& top = Less()(b, a) ? b : a;
        Node& under = &top == &a ? b : a;
        auto& links = under.*Links;
        links.next = (top.*Links).child;
        if (links.next != nullptr) { (links.next->*Links).previous = &under; }
        links.previous = &top;
        (top.*Links).child = &under;
        return &top;
    }

    // A list of siblings becomes one tree: pairs from left to right, then those from right to left.
    static Node* pair(Node* first) noexcept {
        Node* pairs = nullptr; // chained through `next`, last pair first
        while (first != nullptr) {
            Node* const a = first;
            Node* const b = (a->*Links).next;
            first = b != nullptr ? (b->*Links).next : nullptr;
            detach(*a);
            Node* tree = a;
            if (b != nullptr) {
                detach(*b);
                tree = meld(*a, *b);
            }
            (tree->*Links).next = pairs;
            pairs = tree;
        }
        Node* result = nullptr;
        while (pairs != nullptr) {
            Node* const tree = pairs;
            pairs = (tree->*Links).next;
            detach(*tree);
            result = result == nullptr ? tree : meld(*result, *tree);
        }
        return result;
    }

    static void detach(Node& n) noexcept {
        (n.*Links).next = nullptr;
        (n.*Links).previous = nullptr;
    }

    Node* root_ = nullptr;
};

} // namespace mailroom::detail
