// Gives expressions their values, and simplifies what is constant in them.
#include "check.h"
#include "parser.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>

namespace {

using demo::Binary, demo::Call, demo::Expression, demo::Negation, demo::Number, demo::Variable;

class Unknown : public std::out_of_range {
    using std::out_of_range::out_of_range;
};

using Variables = std::map<std::string, double>;
using Function = std::function<double(const std::vector<double> &)>;

const std::map<std::string, std::pair<std::size_t, Function>> &functions()
{
    static const std::map<std::string, std::pair<std::size_t, Function>> all = {
        {"sqrt", {1, [](const auto &a) { return std::sqrt(a[0]); }}},
        {"max", {2, [](const auto &a) { return std::max(a[0], a[1]); }}},
        {"if", {3, [](const auto &a) { return a[0] != 0 ? a[1] : a[2]; }}},
    };
    return all;
}

const std::map<std::string, double (*)(double, double)> operators = {
    {"+", [](double a, double b) { return a + b; }},
    {"-", [](double a, double b) { return a - b; }},
    {"*", [](double a, double b) { return a * b; }},
    {"/", [](double a, double b) { return a / b; }},
    {"<", [](double a, double b) { return static_cast<double>(a < b); }},
    {">", [](double a, double b) { return static_cast<double>(a > b); }},
    {"<=", [](double a, double b) { return static_cast<double>(a <= b); }},
    {">=", [](double a, double b) { return static_cast<double>(a >= b); }},
    {"&&", [](double a, double b) { return static_cast<double>(a != 0 && b != 0); }},
};

template <typename... Visitors>
struct Overloaded : Visitors... {
    using Visitors::operator()...;
};
template <typename... Visitors>
Overloaded(Visitors...) -> Overloaded<Visitors...>;

double value_of(const Expression &expression, const Variables &variables)
{
    const auto inner = [&variables](const auto &child) { return value_of(*child, variables); };
    const auto visitor = Overloaded{
        [](const Number &n) { return n.value; },
        [&](const Variable &v) {
            const auto found = variables.find(v.name);
            if (found == variables.end())
                throw Unknown("no variable " + v.name);
            return found->second;
        },
        [&](const Negation &n) { return -inner(n.operand); },
        [&](const Binary &b) {
            const auto found = operators.find(b.sign);
            if (found == operators.end())
                throw Unknown("no operator " + b.sign);
            return found->second(inner(b.left), inner(b.right));
        },
        [&](const Call &c) {
            const auto found = functions().find(c.name);
            if (found == functions().end() || found->second.first != c.arguments.size())
                throw Unknown("no function " + c.name);
            std::vector<double> values(c.arguments.size());
            std::transform(c.arguments.begin(), c.arguments.end(), values.begin(), inner);
            return found->second.second(values);
        },
    };
    return std::visit(visitor, expression.node);
}

bool near(double a, double b)
{
    return std::abs(a - b) < 1e-9;
}

} // namespace

extern "C" int demo_check_evaluate(void)
{
    const Variables variables = {{"cores", 24}, {"load", 0.25}};
    const std::map<std::string, double> cases = {
        {"cores * (1 - load)", 18}, {"if(load < 0.5 && cores > 8, 1, 2)", 1}, {"sqrt(max(9, 16)) / -2", -2}, {"2*3-4/8", 5.5}};
    for (const auto &[source, wanted] : cases)
        CHECK(near(value_of(*demo::parse(source), variables), wanted));
    for (const char *source : {"free", "max(1)", "nothing()", "1 == 1"}) {
        try {
            value_of(*demo::parse(source), variables);
            return __LINE__;
        } catch (const Unknown &error) {
            CHECK(std::string(error.what()).substr(0, 3) == "no ");
        }
    }
    CHECK(std::isinf(value_of(*demo::parse("1 / 0"), {})));
    return 0;
}
