"""What is wrong with a scenario, in Chinese, as :mod:`citybrain_serving.chinese` has all messages."""

from __future__ import annotations

from collections.abc import Mapping

SCENARIOS: Mapping[str, str] = {
    "give kmh or factor, and not both": "kmh 与 factor 只能给出其一，且必须给出其一",
    "signal retiming holds all day; `when` cannot be narrowed": "信号配时全天有效；不能用 `when` 缩小范围",
    "what is blown in reaches the whole city; `where` cannot be narrowed": "外来输送影响全市；不能用 `where` 缩小范围",
    "give one of case, season and ensemble": "case、season、ensemble 必须且只能给出一个",
    "{} is no time of day; write HH:MM": "{0} 不是一天中的时刻；请写作 HH:MM",
    "{} is no time of day; a day ends at 24:00": "{0} 不是一天中的时刻；一天止于 24:00",
    "the id {} stands already in {}": "id {0} 已出现在 {1}",
    "{} names nothing; leave it out, or write `where: city`": "{0} 为空；请省略，或写作 `where: city`",
    "{} is no number": "{0} 不是数字",
    "begin and end are the same time": "begin 与 end 是同一时刻",
    "the second number is below the first": "第二个数小于第一个数",
    "size must rise and be at most {}": "size 必须递增，且不超过 {0}",
    "give grid or sample, and not both": "grid 与 sample 只能给出其一，且必须给出其一",
    "${} stands for nothing; known are {}": "${0} 没有定义；已定义的有 {1}",
    "{} is given values, but ${} stands nowhere": "给出了 {0} 的取值，但没有用到 ${1}",
    "names refer to each other in a circle": "名称之间循环引用",
    "names and lists stand too deep within each other": "名称与列表嵌套过深",
    "a sweep stands for at most {} scenarios": "一个扫描最多代表 {0} 个方案",
    "a window is whole hours of one day, from begin to a later end": "时段应为同一天内的整点，end 晚于 begin",
    "city {} knows no {} of its roads": "城市 {0} 的道路没有 {1}",
    "{} is not in city {}": "城市 {1} 中没有 {0}",
    "{} is not in city {}; did you mean {}?": "城市 {1} 中没有 {0}；是否指 {2}？",
    "{} is not in city {}; known are {}": "城市 {1} 中没有 {0}；已知的有 {2}",
    "no road of city {} lies there": "城市 {0} 在该处没有道路",
    "weights: {} is no outcome that can be better; known are {}": "weights：{0} 不是有优劣之分的结果；可用的有 {1}",
    "weights: {} is {}; a weight is a number from 0 on": "weights：{0} 为 {1}；权重应为不小于 0 的数",
    "weights: {} cannot be told of a city without stations": "weights：没有监测站的城市无法给出 {0}",
    "weights: at least one must be above 0": "weights：至少一个应大于 0",
    "lost: the server stopped, and answers by another surrogate now; ask again": (
        "已丢失：服务曾停止，现使用另一代理模型；请重新提交"
    ),
    "internal error": "内部错误",
    "combination": "未学过的组合",
    "{} acts only outside the hours judged, {} of a working day": "{0} 只在评估时段（工作日 {1}）之外起作用",
    "{} acts only outside the hours judged, {} of a day off": "{0} 只在评估时段（休息日 {1}）之外起作用",
    "{} acts only outside the hours judged, {}": "{0} 只在评估时段（{1}）之外起作用",
    "signal_retiming changes nothing: no chosen road has a signal at its end": (
        "signal_retiming 不起作用：所选道路的末端均无信号灯"
    ),
    "charge_zone changes nothing: it is every road, and nobody enters it": (
        "charge_zone 不起作用：收费区包含全部道路，没有车辆从外部进入"
    ),
    "{} changes nothing: only motorways are chosen, and no town lies there": (
        "{0} 不起作用：所选均为高速公路，其上没有城区排放"
    ),
    "rerouting_advice changes nothing: a share of {} knows the travel times without it": (
        "rerouting_advice 不起作用：已有 {0} 的驾驶员掌握实时行程时间"
    ),
    "electric_share changes nothing: as many are electric without it": (
        "electric_share 不起作用：现有电动比例已不低于此"
    ),
    "hours beyond those learnt, {}": "超出所学时段 {0}",
    "unknown key": "未知字段",
    "unknown key; did you mean {}?": "未知字段；是否指 {0}？",
    "is missing": "缺少该字段",
    "a measure is a mapping with a lever, not {}": "措施应为含 lever 的对象，而不是 {0}",
    "names no lever; known are {}": "没有指明 lever；已知的有 {0}",
    "{} is no lever; did you mean {}?": "没有名为 {0} 的措施；是否指 {1}？",
    "{} is no lever; known are {}": "没有名为 {0} 的措施；已知的有 {1}",
    "must be a mapping, not {}": "应为对象，而不是 {0}",
    "must be a list, not {}": "应为列表，而不是 {0}",
    "{}, not {}": "{0}，而不是 {1}",
    "{}; longitude stands before latitude": "{0}；经度在前，纬度在后",
    "Input should be a valid integer, not {}": "应为整数，而不是 {0}",
    "Input should be a valid integer, unable to parse string as an integer, not {}": "应为整数，而不是 {0}",
    "Input should be a valid integer, got a number with a fractional part, not {}": "应为整数，而不是 {0}",
    "Input should be a valid number, not {}": "应为数字，而不是 {0}",
    "Input should be a valid number, unable to parse string as a number, not {}": "应为数字，而不是 {0}",
    "Input should be a finite number, not {}": "应为有限数，而不是 {0}",
    "Input should be a valid string, not {}": "应为字符串，而不是 {0}",
    "Input should be a valid boolean, not {}": "应为 true 或 false，而不是 {0}",
    "Input should be a valid boolean, unable to interpret input, not {}": "应为 true 或 false，而不是 {0}",
    "Input should be a valid list, not {}": "应为列表，而不是 {0}",
    "Input should be a valid date{}; write YYYY-MM-DD": "应为日期，写作 YYYY-MM-DD",
    "lanes closed": "封闭车道",
    "roads closed": "封闭道路",
    "speed limits": "限速",
    "signals retimed": "信号配时",
    "trips taken away or added": "减少或增加的出行",
    "less exhaust": "减排",
    "vehicles barred": "禁行车辆",
    "traffic diverted": "绕行交通",
    "drivers informed": "获得诱导的驾驶员",
}
