"""What the service says in English where it says it, in Chinese: messages of errors, refusals and doubts, titles.

A message is written once, where it is raised. Here stands its skeleton, each value a ``{}``, and beside it the same in
Chinese, with the values by number. A test reads the code for messages that are missing here; one that is missing all
the same is given in English.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from citybrain_serving.languages import Language
from citybrain_serving.scenarios.chinese import SCENARIOS

TITLES: Mapping[str, str] = {
    "Bad request": "请求有误",
    "Unauthorized": "未经认证",
    "Forbidden": "无权限",
    "Not found": "未找到",
    "Method not allowed": "不支持的请求方法",
    "Not acceptable": "无法提供所要求的格式",
    "Request timeout": "请求超时",
    "Conflict": "状态冲突",
    "Content too large": "内容过大",
    "Unsupported media type": "不支持的内容类型",
    "Not processable": "无法处理",
    "Too many requests": "请求过于频繁",
    "Internal error": "内部错误",
    "Unavailable": "暂时不可用",
    "Error": "错误",
}

SELECTIONS: Mapping[str, str] = {
    "ids is empty; leave it out for every node": "ids 为空；要查询全部节点请省略该参数",
    "ids names {} nodes; at most {}": "ids 列出了 {0} 个节点，最多 {1} 个",
    "bbox {} must be four numbers, west,south,east,north in degrees, or six with heights": (
        "bbox {0} 必须是四个数：西,南,东,北（度），或带高度的六个数"
    ),
    "bbox {} must lie within ±180° and ±90°, south not above north": "bbox {0} 必须在 ±180° 与 ±90° 之内，且南不高于北",
    "{} {} must be among {} ({})": "{0} {1} 必须取自 {2}（{3}）",
    "{} nodes have no index here": "此处的{0}节点没有指数",
    "{} nodes have no {} here": "此处的{0}节点没有 {1}",
    "{} takes a quantile of {}, which this forecast does not tell": "{0} 取 {1} 分位数，此预测未给出该分位数",
    "{} has no index {}, only {}": "{0} 没有指数 {1}，只有 {2}",
    "there is no index {}, only {}": "没有指数 {0}，只有 {1}",
    "{} has no zone; end it with Z or an offset": "{0} 没有时区；请以 Z 或时差结尾",
    "{} is no time that forecasts are kept of": "{0} 不是可保存预测的时间",
    "from {} is later than to {}": "from {0} 晚于 to {1}",
    "from {} to {} is no span of at most {} days": "{0} 至 {1} 不是至多 {2} 天的时段",
    "no {} node has the id {}{}": "没有 id 为 {1}{2} 的{0}节点",
    "{} and {} more": "{0}，另有 {1} 个",
    "congestion and pm25": "congestion 和 pm25",
    "no road and no air station of {} is near {}, {}": "{1}, {2} 附近没有 {0} 的道路或空气站",
    "{} is not forecast here, only {}": "此处不预测 {0}，只预测 {1}",
    "no forecast of {} issued at {} is kept; its history tells which are": (
        "没有保存 {1} 发布的 {0} 预测；其 history 列出所保存的预测"
    ),
    "there is no parameter {} here, only {}": "此处没有参数 {0}，只有 {1}",
    "{} is given {} times; it takes one value": "{0} 给出了 {1} 次；该参数只取一个值",
    "no forecast has been computed yet": "尚未计算出预测",
    "no forecast has been computed yet; it takes observations, and a moment": "尚未计算出预测；需要观测数据，并请稍候",
    "this address answers {}": "此地址提供 {0}",
    "there is nothing at {}": "{0} 不存在",
    "{} is not possible at {}": "{1} 不支持 {0}",
}

BODIES: Mapping[str, str] = {
    "the body must be {}": "请求体必须是 {0}",
    "the body must not be compressed": "请求体不得压缩",
    "the body is announced with {} bytes; at most {} are read": "请求体声明为 {0} 字节，最多读取 {1} 字节",
    "the body is over {} bytes; send it in parts": "请求体超过 {0} 字节，请分批发送",
    "the message has {} bytes; at most {} are read": "消息有 {0} 字节，最多读取 {1} 字节",
    "the body is no JSON: {}": "请求体不是 JSON：{0}",
    "the body is nested too deeply": "请求体嵌套过深",
    "the key {} is given twice in one object": "同一对象中两次给出键 {0}",
    "the body must be a JSON object": "请求体必须是 JSON 对象",
    "the body must have the one key 'observations', or the columns {} (and unit); it has {}": (
        "请求体必须只有 'observations' 一个键，或有 {0} 各列（可加 unit）；现有 {1}"
    ),
    "the body is no Arrow IPC stream: {}": "请求体不是 Arrow IPC 流：{0}",
    "the columns must be {} (and unit), not {}": "各列必须是 {0}（可加 unit），而不是 {1}",
    "column time is {}, must be a timestamp with a zone": "time 列为 {0}，必须是带时区的时间戳",
    "column value: is bool, must be a number": "value 列为 bool，必须是数字",
    "column value: {}": "value 列：{0}",
    "column {}: {}": "{0} 列：{1}",
    "{} readings in one body; at most {} are taken": "一次发送了 {0} 条读数，最多接收 {1} 条",
    "the body must have, beside 'issued', the one key 'forecasts', or the columns {} (and unit); it has {}": (
        "除 'issued' 外，请求体必须只有 'forecasts' 一个键，或有 {0} 各列（可加 unit）；现有 {1}"
    ),
    "'issued' must be an ISO 8601 date and time with a zone, in whole seconds": (
        "'issued' 必须是带时区、精确到整秒的 ISO 8601 日期时间"
    ),
    "{} must be a list": "{0} 必须是列表",
    "columns differ in length: {}": "各列长度不一：{0}",
    "the column(s) {} are missing": "缺少列 {0}",
    "the body is no XML: {}": "请求体不是 XML：{0}",
    "the body has a DTD or entities, which are not read": "请求体含有 DTD 或实体，不予读取",
    "the body holds no MeasuredDataPublication and no MeasurementSiteTablePublication": (
        "请求体中既没有 MeasuredDataPublication，也没有 MeasurementSiteTablePublication"
    ),
    "the body must be a Notification with data, an entity or a list of entities": (
        "请求体必须是带 data 的 Notification、一个实体或实体列表"
    ),
    "none of {} readings can be accepted": "{0} 条读数均不能接收",
}

READINGS: Mapping[str, str] = {
    "needs strings id, signal, time and a number value": "需要字符串 id、signal、time 和数值 value",
    "a reading must be a JSON object": "读数必须是 JSON 对象",
    "{} must be given": "必须给出 {0}",
    "there is no member {} in a reading, only {}, unit": "读数没有成员 {0}，只有 {1}, unit",
    "{} must be a string": "{0} 必须是字符串",
    "value must be a number": "value 必须是数字",
    "needs an id and a type, both strings": "需要字符串 id 和 type",
    "publications without a value of a site": "没有站点数值的发布",
    "sites without a value that is read here": "没有此处可读取数值的站点",
    "quantities without a value": "没有数值的测量量",
    "values of the kind {}": "类别为 {0} 的数值",
    "values of the kind {} without what is read here": "类别为 {0}、但没有此处可读取内容的数值",
    "values of the pollutant {}": "污染物 {0} 的数值",
    "signal {} is not measured here; known are {}": "此处不测量 {0}；已知的有 {1}",
    "value is no finite number; a reading that is missing is left out": "value 不是有限数；缺测的读数不必发送",
    "time is no ISO 8601 date and time": "time 不是 ISO 8601 日期时间",
    "time has no zone; end it with Z or an offset": "time 没有时区；请以 Z 或时差结尾",
    "time is later than {}, the newest accepted": "time 晚于可接收的最新时间 {0}",
    "time is more than {} before now": "time 早于现在超过 {0}",
    "signal {} is no weather of this city; known are {}": "{0} 不是本市的气象要素；已知的有 {1}",
    "issued is later than {}, the newest accepted": "issued 晚于可接收的最新时间 {0}",
    "issued is more than {} before now; no forecast reads it": "issued 早于现在超过 {0}，预测不再使用",
    "time is before issued: what has been is no forecast": "time 早于 issued：已过去的不是预报",
    "time is more than {} after issued": "time 晚于 issued 超过 {0}",
    "{} of {} was given before with another value, which stays": "{1} 的 {0} 先前已有不同的值，保留原值",
    "is of a part of the road; its lanes are taken together": "只是道路的一部分；各车道须一并提供",
    "{} of {} is told of lane {} alone; its {} lanes are taken together": (
        "{1} 的 {0} 只给出车道 {2}；须一并给出其 {3} 条车道"
    ),
    "{} of {} is told of lanes of both directions; a road has one": (
        "{1} 的 {0} 给出了两个方向的车道；一条道路只有一个方向"
    ),
    "lane {} of {} came later than the {} min that lanes wait for each other": (
        "{1} 的车道 {0} 晚到，超过各车道相互等待的 {2} 分钟"
    ),
    "lane {} of {} came without the others, and its road was told of already": (
        "{1} 的车道 {0} 单独到达，而该道路已有读数"
    ),
    "nothing says what the {} indexes with {} of {} mean": "未说明 {2} 的 {1} 的 {0} 个 index 各指什么",
    "values of single lanes beside that of their road": "已有整条道路数值时的单车道数值",
    "values of lanes that were told already": "已给出过的车道数值",
    "{} is no {} node of the city": "{0} 不是本市的{1}节点",
    "unit {}; {} is given in {}": "单位为 {0}；{1} 的单位应为 {2}",
    "{} {} {} lies outside {}–{}": "{0} {1} {2} 超出 {3}–{4}",
    "time is no tick of {}, measured every {} min": "time 不在 {0} 的观测时刻上，其每 {1} 分钟观测一次",
    "time is no tick of any clock here": "time 不在任何观测时刻上",
    "{} of {} has been {} for over {} hours": "{1} 的 {0} 已连续 {3} 小时以上保持 {2} 不变",
    "{} is not measured at {} nodes here": "此处的{1}节点不测量 {0}",
    "entities of type {}": "类型为 {0} 的实体",
    "entities of type {} without a number": "类型为 {0}、但没有数值的实体",
    "attribute {} of {} is not read here": "此处不读取 {1} 的属性 {0}",
    "values of single vehicle classes": "单一车型的数值",
    "values that are forecasts": "预测数值",
    "values measured indoors": "室内测得的数值",
    "values that their sender marks as faulty": "发送方标记为故障的数值",
}

DOUBTS: Mapping[str, str] = {
    "no {} was observed": "没有 {0} 的观测",
    "the model failed": "模型运行失败",
    "the model's answer has another shape than its task": "模型结果的形状与任务不符",
    "the model's answer is impossible at {} nodes": "模型结果在 {0} 个节点上不可能成立",
    "the model's answer leaps at {} nodes": "模型结果在 {0} 个节点上发生不合理的跳变",
    "the model's answer leaps for most of the city at once": "模型结果在全市大部分节点上同时发生不合理的跳变",
    "only {} of recent outcomes lay inside the interval; {} should": "近期实际值仅有 {0} 落在预测区间内，应有 {1}",
}

DECISIONS: Mapping[str, str] = {
    "there is no case {}": "没有案件 {0}",
    "case {} is {} by now, not {}": "案件 {0} 现为 {1}，而非 {2}",
    "case {} is {}; {} is not possible": "案件 {0} 处于 {1} 状态，不能{2}",
    "case {}": "案件 {0}",
    "{} node {}": "{0}节点 {1}",
    "a case of {} at {} is open already": "{1} 已有未结的 {0} 案件",
    "the trouble has passed": "问题已经过去",
    "{} is not yours to act on": "{0} 不归您处置",
    "no bundle of {} was swapped since the service started": "服务启动以来没有更换过 {0} 的模型包",
    "where the bundle {} of {} lay is another one by now": "{1} 的模型包 {0} 所在位置现为另一模型包",
    "was started with another bundle after the swap": "更换之后以另一模型包启动",
    "it cannot be run: {}": "模型包无法运行：{0}",
    "its forecast of this moment could not be published: {}": "其当前的预测不能发布：{0}",
    "{} forecasts {}, not {}": "{0} 预测的是 {1}，而不是 {2}",
    "no folder is set (bundle_root) that bundles may be loaded from": "没有设置可载入模型包的目录（bundle_root）",
    "bundle must be a path below the folder of bundles": "bundle 必须是模型包目录之下的路径",
    "bundle must be a path without links": "bundle 路径不得含有链接",
    "more than {} scenarios; use `citybrain score`": "情景超过 {0} 个；请使用 `citybrain score`",
    "weather: only the usual weather is answered here; use `citybrain score` for others": (
        "weather：此处只回答通常天气；其他天气请使用 `citybrain score`"
    ),
    "the surrogate of {} cannot be read here": "此处无法读取 {0} 的代理模型",
    "the surrogate of {} was trained for other roads than those served here": "{0} 的代理模型所训练的道路与此处不同",
    "there is no scenario job {} of yours": "您没有情景任务 {0}",
    "{} jobs are under way; come back later": "已有 {0} 个任务在进行；请稍后再来",
    "{} jobs of yours are under way; wait for one or cancel it": "您已有 {0} 个任务在进行；请等待或取消其一",
    "no forecast of speed has been published yet": "尚未发布速度预测",
    "no forecast of PM2.5 has been published yet": "尚未发布 PM2.5 预测",
    "the forecast of PM2.5 does not tell of these hours": "PM2.5 预测未涵盖这些时段",
}

SERVICE: Mapping[str, str] = {
    "an internal error; it was logged under this id": "内部错误；已按此编号记入日志",
    "the key or token is not valid here": "密钥或令牌在此无效",
    "this takes a key or token: Authorization: Bearer …": "需要密钥或令牌：Authorization: Bearer …",
    "this takes the permission to {}": "需要“{0}”权限",
    "too many unknown keys": "未知密钥尝试过多",
    "keys cannot be checked now": "目前无法核验密钥",
    "{} is no name of this service (allowed_hosts)": "{0} 不是此服务的主机名（allowed_hosts）",
    "more requests than agreed": "请求超过约定的频率",
    "more is asked than can be done now": "目前请求过多，无法处理",
    "too many requests are under way": "正在处理的请求过多",
    "the service is about to stop": "服务即将停止",
    "the audit log cannot be written now": "目前无法写入审计日志",
    "no answer in time": "未能及时答复",
    "the body did not come in time": "请求体未及时送达",
    "{} listeners are connected; ask /v1/forecasts instead": "已有 {0} 个监听连接；请改为查询 /v1/forecasts",
    "{} streams of yours are open; ask /v1/forecasts instead": "您已打开 {0} 个流；请改为查询 /v1/forecasts",
    "the store cannot be used now{}; nothing was written": "目前无法使用数据库{0}；没有写入任何内容",
    "store {}: cannot be used: {}": "数据库 {0}：无法使用：{1}",
    "the store does not take this ({}); nothing was written": "数据库不接受此内容（{0}）；没有写入任何内容",
    "a stored frame of observations is damaged": "一帧已存观测数据损坏",
    "another replica computes by now; nothing was written": "现由另一副本计算；没有写入任何内容",
}

FIELDS: Mapping[str, str] = {
    "Field required": "缺少该字段",
    "there is no such member, only {}": "没有该字段，只有 {0}",
    "Extra inputs are not permitted": "不允许有该字段",
    "Input should be a valid integer, unable to parse string as an integer": "应为整数",
    "Input should be a valid integer": "应为整数",
    "Input should be a valid integer, got a number with a fractional part": "应为整数，不能有小数",
    "Input should be a valid number, unable to parse string as a number": "应为数字",
    "Input should be a valid number": "应为数字",
    "Input should be a finite number": "应为有限数",
    "Input should be a valid string": "应为字符串",
    "Input should be a valid boolean": "应为 true 或 false",
    "Input should be a valid boolean, unable to interpret input": "应为 true 或 false",
    "Input should be a valid list": "应为列表",
    "Input should be a valid tuple": "应为列表",
    "{} or {}": "{0} 或 {1}",
    "Tuple should have at least {} item{} after validation, not {}": "至少应有 {0} 项，现有 {2} 项",
    "Tuple should have at most {} item{} after validation, not {}": "至多应有 {0} 项，现有 {2} 项",
    "Value should have at least {} item{} after validation, not {}": "至少应有 {0} 项，现有 {2} 项",
    "Value should have at most {} item{} after validation, not {}": "至多应有 {0} 项，现有 {2} 项",
    "Input should be a valid dictionary": "应为对象",
    "Input should be a valid dictionary or object to extract fields from": "应为对象",
    "Input should be greater than or equal to {}": "应不小于 {0}",
    "Input should be greater than {}": "应大于 {0}",
    "Input should be less than or equal to {}": "应不大于 {0}",
    "Input should be less than {}": "应小于 {0}",
    "Input should be {}": "应为 {0}",
    "Input should be a valid datetime{}": "应为日期时间",
    "Input should be a valid datetime or date{}": "应为日期时间或日期",
    "Input should be a valid date{}": "应为日期",
    "String should have at least {} character{}": "至少应有 {0} 个字符",
    "String should have at most {} character{}": "至多应有 {0} 个字符",
    "String should match pattern {}": "应符合格式 {0}",
    "List should have at least {} item{} after validation, not {}": "至少应有 {0} 项，现有 {2} 项",
    "List should have at most {} item{} after validation, not {}": "至多应有 {0} 项，现有 {2} 项",
    "Input tag {} found using {} does not match any of the expected tags: {}": "{1} 不能为 {0}，应为 {2} 之一",
    "JSON decode error": "JSON 解析错误",
    "There was an error parsing the body": "请求体无法解析",
    "Value error, {}": "{0}",
}
"""As pydantic words what is wrong with a field."""

SIGNALS: Mapping[str, str] = {
    "mean speed of vehicles": "车辆平均速度",
    "vehicles passing in an hour": "小时交通量",
    "share of time a detector is covered": "检测器时间占有率",
    "fine particles, PM2.5": "细颗粒物 PM2.5",
    "particles, PM10": "可吸入颗粒物 PM10",
    "nitrogen dioxide": "二氧化氮",
    "nitrogen monoxide": "一氧化氮",
    "nitrogen oxides": "氮氧化物",
    "ozone": "臭氧",
    "sulphur dioxide": "二氧化硫",
    "carbon monoxide": "一氧化碳",
    "air temperature at 2 m": "2 米气温",
    "dew point at 2 m": "2 米露点温度",
    "air pressure at the station": "本站气压",
    "relative humidity": "相对湿度",
    "wind speed at 10 m": "10 米风速",
    "direction the wind blows from, clockwise from north": "风的来向（自北顺时针）",
    "precipitation": "降水",
    "height of the mixed layer": "混合层高度",
}
"""Titles of what is measured."""

UNITS: Mapping[str, str] = {
    "km/h": "公里/小时",
    "veh/h": "辆/小时",
    "1": "无量纲",
    "µg/m³": "微克/立方米",
    "mg/m³": "毫克/立方米",
    "°C": "摄氏度",
    "hPa": "百帕",
    "%": "百分比",
    "m/s": "米/秒",
    "°": "度",
    "mm/h": "毫米/小时",
    "m": "米",
    "veh·h": "辆·小时",
    "s/km/veh": "秒/公里/辆",
    "µg/m³·h": "微克/立方米·小时",
    "person·µg/m³·h": "人·微克/立方米·小时",
}
"""Units in words; in English a unit is its symbol."""

VALUES: Mapping[str, str] = {
    "road": "道路",
    "air": "空气站",
    "city": "全市",
    "none": "无",
    "discovered": "已发现",
    "filed": "已立案",
    "dispatched": "已派遣",
    "closed": "已结案",
    "file": "立案",
    "dispatch": "派遣",
    "close": "结案",
    "minutes ahead": "提前分钟数",
    "levels": "分位数",
    "a mapping": "对象",
    "a list": "列表",
    "this": "所给内容",
    "look": "查看",
    "read": "读取",
    "infer": "推理",
    "ingest": "写入观测",
    "decide": "处置",
    "administer": "管理",
}
"""Words that stand in the holes of messages."""

_EXACT = {**TITLES, **SIGNALS}
_SKELETONS = {**SELECTIONS, **BODIES, **READINGS, **DOUBTS, **DECISIONS, **SCENARIOS, **SERVICE, **FIELDS}


def translated(text: str, language: Language) -> str:
    """A message in a language; as it is where nothing is known of it."""
    return text if language == "en" else _chinese(text)


def unit_name(unit: str, language: Language) -> str:
    return unit if language == "en" else UNITS.get(unit, unit)


def skeletons() -> frozenset[str]:
    """Every message that is known in Chinese."""
    return frozenset((*_EXACT, *_SKELETONS))


@lru_cache(maxsize=1024)
def _chinese(text: str) -> str:
    known = _EXACT.get(text) or (_SKELETONS.get(text) if "{" not in text else None)
    if known is not None:
        return known
    for pattern, template in _PATTERNS:
        found = pattern.fullmatch(text)
        if found:
            return template.format(*(VALUES.get(value) or _chinese(value) for value in found.groups()))
    return text


def _compiled(skeleton: str) -> re.Pattern[str]:
    return re.compile("(.*?)".join(re.escape(part) for part in skeleton.split("{}")), re.DOTALL)


# The wordiest first: of two that fit, the one with more words of its own is meant.
_PATTERNS = [
    (_compiled(skeleton), template)
    for skeleton, template in sorted(_SKELETONS.items(), key=lambda item: -len(item[0].replace("{}", "")))
    if "{}" in skeleton
]
