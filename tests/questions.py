"""Prints 5,000 Korean questions, class<TAB>text: 500 things that one may want to know, each in ten wordings."""

CITIES = (
    "서울 부산 대구 인천 광주 대전 울산 세종 수원 춘천 강릉 청주 충주 전주 군산 목포 여수 "
    "순천 포항 경주 안동 창원 진주 통영 제주 파주 김포 안양 부천 용인 이천 평택 속초 원주 "
    "태백 제천 공주 보령 서산 익산 정읍 나주 구미 영주 김천 거제 밀양 양산 남해 울릉"
)
TOPICS = "날씨", "맛집", "가는 길", "기차 시간", "미세 먼지", "축제 일정", "야구 경기", "집값", "숙소 추천", "해 뜨는 시각"
WORDINGS = (
    "{city} {topic} 알려 줘",
    "{topic} 정보 좀, {city} 쪽으로",
    "{city}의 {topic}에 대해 알고 싶어요",
    "혹시 {city} {topic} 어떻게 되나요?",
    "{city} {topic} 검색해 주세요",
    "지금 {city}에 있는데 {topic} 찾아 줄래?",
    "내일 {city}에 가는데 {topic} 좀 봐 줘",
    "{topic}, 궁금합니다. 지역은 {city}입니다.",
    "{city} 쪽 {topic} 확인 부탁해",
    "네가 아는 {city} {topic} 있으면 말해 봐",
)

if __name__ == "__main__":
    for number, (city, topic) in enumerate((city, topic) for city in CITIES.split() for topic in TOPICS):
        for wording in WORDINGS:
            print(number, wording.format(city=city, topic=topic), sep="\t")
